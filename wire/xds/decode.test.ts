import assert from "node:assert/strict";
import { describe, it } from "node:test";
import {
  create,
  type DescField,
  type MessageInitShape,
  ScalarType,
  toBinary,
} from "@bufbuild/protobuf";
import { anyPack, DurationSchema, StringValueSchema } from "@bufbuild/protobuf/wkt";
import fc from "fast-check";
import { MeshError } from "#core/errors.ts";
import {
  AddressSchema,
  LocalitySchema,
  PortListSchema,
  ServiceSchema,
  TunnelProtocol,
  WorkloadSchema,
} from "#wire/gen/workload_pb.js";
import { decodeAddress, decodeService, decodeWorkload } from "./decode.ts";

type WorkloadInit = MessageInitShape<typeof WorkloadSchema>;
type ServiceInit = MessageInitShape<typeof ServiceSchema>;

const workload = (init: WorkloadInit) =>
  decodeWorkload(create(WorkloadSchema, { uid: "u", namespace: "shop", ...(init as object) }));
const service = (init: ServiceInit) =>
  decodeService(create(ServiceSchema, { namespace: "shop", hostname: "h", ...(init as object) }));
const bytes = (...values: number[]) => Uint8Array.from(values);
const affinity = (seconds: bigint, nanos = 0) => ({
  name: "aquifer.mesh/session-affinity",
  config: anyPack(DurationSchema, create(DurationSchema, { seconds, nanos })),
});
/** An enum value of some newer contract. */
const NEWER = 99 as never;
const hostname = { case: "hostname", value: { namespace: "mesh", hostname: "w" } } as const;

function refuses(decode: () => unknown, message: string): void {
  assert.throws(decode, (error) => {
    assert.ok(error instanceof MeshError);
    assert.equal(error.code, "RESOURCE_INVALID");
    assert.equal(error.message, message);
    return true;
  });
}

describe("decodeWorkload()", () => {
  it("fills in what the contract defaults", () => {
    const { trustDomain, serviceAccount, clusterId, capacity, locality } = workload({});
    assert.deepEqual(
      [trustDomain, serviceAccount, clusterId, capacity, locality],
      ["cluster.local", "default", "Kubernetes", 1, { region: "", zone: "", subzone: "" }],
    );
  });

  it("takes a capacity of 0 for 0, not for unset", () => {
    assert.equal(workload({ capacity: 0 }).capacity, 0);
  });

  const refused: readonly (readonly [WorkloadInit, string])[] = [
    [{ uid: "" }, 'workload "": uid is empty'],
    [
      { addresses: [bytes(1, 2, 3, 4), bytes(1)] },
      "addresses[1] is 1 bytes long, an address has 4 or 16",
    ],
    [{ tunnelProtocol: NEWER }, "tunnel_protocol has the unknown value 99"],
    [
      { tunnelProtocol: TunnelProtocol.LEGACY_ISTIO_MTLS },
      "tunnel_protocol is LEGACY_ISTIO_MTLS, which is only spoken by sidecars",
    ],
    [{ workloadType: NEWER }, "workload_type has the unknown value 99"],
    [{ status: NEWER }, "status has the unknown value 99"],
    [{ networkMode: NEWER }, "network_mode has the unknown value 99"],
    [
      { authorizationPolicies: ["ns/ok", "bare"] },
      'authorization_policies[1] "bare" names no policy',
    ],
    [{ services: { bare: {} } }, 'services "bare" names no service'],
    [
      { services: { "ns/h": { ports: [{ servicePort: 80 }, { servicePort: 65_536 }] } } },
      'services["ns/h"].ports[1].service_port is 65536, ports end at 65535',
    ],
    [
      { services: { "ns/h": { ports: [{ servicePort: 0 }] } } },
      'services["ns/h"].ports[0].service_port is 0, which is no port',
    ],
    [
      { services: { "ns/h": { ports: [{ servicePort: 80, targetPort: 70_000 }] } } },
      'services["ns/h"].ports[0].target_port is 70000, ports end at 65535',
    ],
    [
      { applicationTunnel: { protocol: NEWER } },
      "application_tunnel.protocol has the unknown value 99",
    ],
    [
      { applicationTunnel: { port: 65_536 } },
      "application_tunnel.port is 65536, ports end at 65535",
    ],
    [
      { waypoint: { hboneMtlsPort: 15_008 } },
      "waypoint.destination is neither a hostname nor an address",
    ],
    [{ waypoint: { destination: hostname } }, "waypoint.hbone_mtls_port is 0, which is no port"],
    [
      {
        networkGateway: {
          destination: { case: "address", value: { address: bytes(10, 0, 0, 0), length: 8 } },
          hboneMtlsPort: 15_008,
        },
      },
      "network_gateway.address.length makes it more than one address",
    ],
    [
      { serviceAccount: "a/b" },
      'service_account is no good: Cannot read identity "spiffe://cluster.local/ns/shop/sa/a/b": ' +
        'expected "spiffe://<trust domain>/ns/<namespace>/sa/<service account>"',
    ],
  ];
  for (const [init, reason] of refused) {
    it(`refuses: ${reason.slice(0, 80)}`, () => {
      const subject = reason.startsWith('workload "') ? "" : 'workload "u": ';
      refuses(() => workload(init), `Cannot read ${subject}${reason}`);
    });
  }

  it("takes an IPv4 address that came as IPv6 for the IPv4 address", () => {
    const mapped = bytes(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 0, 1);
    assert.deepEqual(workload({ addresses: [mapped] }).addresses, ["10.0.0.1"]);
  });

  it("lets extensions go that it does not know", () => {
    assert.equal(workload({ extensions: [{ name: "example.org/x" }] }).uid, "u");
  });
});

describe("decodeService()", () => {
  it("clears the bits behind a prefix, as istiod does not", () => {
    const [address] = service({
      addresses: [{ address: bytes(10, 1, 2, 3), length: 8 }],
    }).addresses;
    assert.deepEqual(address?.block, { address: "10.0.0.0", length: 8 });
  });

  it("counts the length of a mapped block from the IPv4 address", () => {
    const mapped = bytes(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 0, 0);
    const [address] = service({ addresses: [{ address: mapped, length: 104 }] }).addresses;
    assert.deepEqual(address?.block, { address: "10.0.0.0", length: 8 });
  });

  it("reads the session affinity from its extension", () => {
    assert.equal(
      service({ extensions: [affinity(10_800n, 5_000_000)] }).sessionAffinityMs,
      10_800_005,
    );
    assert.equal(service({ extensions: [{ name: "example.org/x" }] }).sessionAffinityMs, undefined);
  });

  const noDuration = {
    name: "aquifer.mesh/session-affinity",
    config: anyPack(StringValueSchema, create(StringValueSchema, { value: "1h" })),
  };
  const extension = "extensions.aquifer.mesh/session-affinity";
  const refused: readonly (readonly [ServiceInit, string])[] = [
    [{ ipFamilies: NEWER }, "ip_families has the unknown value 99"],
    [{ visibility: NEWER }, "visibility has the unknown value 99"],
    [
      { ports: [{ servicePort: 80, appProtocol: NEWER }] },
      "ports[0].app_protocol has the unknown value 99",
    ],
    [{ ports: [{ servicePort: 0 }] }, "ports[0].service_port is 0, which is no port"],
    [
      { addresses: [{ address: bytes(10, 0, 0, 0), length: 33 }] },
      "addresses[0].length is no good: " +
        'Cannot make a block of "10.0.0.0": a prefix length is from 0 to 32, not 33',
    ],
    [
      { loadBalancing: { routingPreference: [1, 0] } },
      "load_balancing.routing_preference[1] has the unknown value 0",
    ],
    [{ loadBalancing: { mode: NEWER } }, "load_balancing.mode has the unknown value 99"],
    [
      { loadBalancing: { healthPolicy: NEWER } },
      "load_balancing.health_policy has the unknown value 99",
    ],
    [{ weightedWaypoints: [{ weight: 1 }] }, "weighted_waypoints[0].destination is missing"],
    [{ extensions: [noDuration] }, `${extension} holds no google.protobuf.Duration`],
    [{ extensions: [affinity(-1n)] }, `${extension} is -1000 ms, not a time to keep endpoints`],
  ];
  for (const [init, reason] of refused) {
    it(`refuses: ${reason.slice(0, 80)}`, () => {
      refuses(() => service(init), `Cannot read service "shop/h": ${reason}`);
    });
  }

  it("refuses a service without a key", () => {
    refuses(() => service({ hostname: "" }), 'Cannot read service "shop/": hostname is empty');
    const slash = 'Cannot read service "a/b/h": namespace "a/b" has a slash';
    refuses(() => service({ namespace: "a/b" }), slash);
  });
});

describe("decode.ts", () => {
  /** What is read without effect: see the comments in decode.ts. */
  const LET_GO = new Set([
    "istio.workload.Workload.extensions",
    "istio.workload.Service.extensions",
    "istio.workload.Service.ingress_use_waypoint",
  ]);

  const subjects = [
    { schema: WorkloadSchema, decode: (init: object) => workload(init) },
    { schema: ServiceSchema, decode: (init: object) => service(init) },
  ];
  for (const { schema, decode } of subjects) {
    for (const field of schema.fields) {
      const name = `${schema.typeName}.${field.name}`;
      it(`${LET_GO.has(name) ? "lets go" : "does not overlook"} ${name}`, () => {
        assert.equal(
          outcomeOf(decode, {}) === outcomeOf(decode, someValueOf(field)),
          LET_GO.has(name),
        );
      });
    }
  }

  function someValueOf(field: DescField): object {
    return { [field.localName]: someContentOf(field) };
  }

  function someContentOf(field: DescField): unknown {
    if (field.fieldKind === "map") return { "ns/h": create(PortListSchema) };
    const one = someElementOf(field);
    return field.fieldKind === "list" ? [one] : one;
  }

  function someElementOf(field: DescField): unknown {
    if (field.message?.typeName === "google.protobuf.UInt32Value") return 7;
    if (field.message?.typeName === LocalitySchema.typeName) {
      return create(LocalitySchema, { region: "r" });
    }
    if (field.message) return create(field.message);
    if (field.enum) return 1;
    if (field.scalar === ScalarType.BYTES) return bytes(10, 0, 0, 1);
    return field.scalar === ScalarType.BOOL ? true : "some/text";
  }

  /** A value or a refusal, as a text: either shows that the field was looked at. */
  function outcomeOf(decode: (init: object) => unknown, init: object): string {
    try {
      return JSON.stringify(decode(init), (_, value) =>
        value instanceof Map ? [...value] : value,
      );
    } catch (error) {
      return String(error);
    }
  }
});

describe("decodeAddress()", () => {
  it("refuses an address that is neither a workload nor a service", () => {
    const empty = toBinary(AddressSchema, create(AddressSchema));
    const message = 'Cannot read address "x": type is neither a workload nor a service';
    refuses(() => decodeAddress("x", empty), message);
  });

  it("turns any bytes into a value or a named refusal", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (noise) => {
        try {
          decodeAddress("x", noise);
        } catch (error) {
          assert.ok(error instanceof MeshError && error.code === "RESOURCE_INVALID", String(error));
        }
      }),
      { numRuns: 2_000 },
    );
  });

  it("turns a damaged message into a value or a named refusal", () => {
    const value = create(WorkloadSchema, {
      uid: "Kubernetes//Pod/shop/cart",
      namespace: "shop",
      addresses: [bytes(10, 0, 0, 1)],
      services: { "shop/cart": { ports: [{ servicePort: 80, targetPort: 8080 }] } },
      waypoint: { destination: hostname, hboneMtlsPort: 15_008 },
      capacity: 3,
    });
    const whole = toBinary(
      AddressSchema,
      create(AddressSchema, { type: { case: "workload", value } }),
    );
    const damage = fc.array(fc.tuple(fc.nat(whole.length - 1), fc.nat(255)), {
      minLength: 1,
      maxLength: 4,
    });
    fc.assert(
      fc.property(damage, fc.nat(whole.length), (changes, length) => {
        const damaged = Uint8Array.from(whole);
        for (const [index, byte] of changes) damaged[index] = byte;
        try {
          decodeAddress("x", damaged.subarray(0, length));
        } catch (error) {
          assert.ok(error instanceof MeshError && error.code === "RESOURCE_INVALID", String(error));
        }
      }),
      { numRuns: 3_000 },
    );
  });
});
