import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { fromBinary, toBinary } from "@bufbuild/protobuf";
import fc from "fast-check";
import { blockOf, ipFromBytes } from "#core/ip.ts";
import type { Match, Policy, StringMatch } from "#core/policy/policy.ts";
import type { Service } from "#core/service/service.ts";
import {
  type GatewayAddress,
  type PolicyKey,
  policyKeyOf,
  type ServiceKey,
  serviceKeyOf,
  type Workload,
  type WorkloadUid,
} from "#core/service/workload.ts";
import { WorkloadSchema } from "#wire/gen/workload_pb.js";
import { decodeAddress } from "./decode.ts";
import { decodeAuthorization } from "./decode-policy.ts";
import {
  encodeAuthorization,
  encodeServiceAddress,
  encodeWorkload,
  encodeWorkloadAddress,
} from "./encode.ts";

/** Plain objects, as deepEqual() wants them. */
function record<T>(model: { [Key in keyof T]: fc.Arbitrary<T[Key]> }) {
  return fc.record<T>(model, { noNullPrototype: true });
}

const text = fc.string({ unit: "binary", maxLength: 12 });
const label = fc.stringMatching(/^[a-z][a-z0-9-]{0,10}$/);
const port = fc.integer({ min: 1, max: 65_535 });
const portOrZero = fc.integer({ min: 0, max: 65_535 });
const uint32 = fc.integer({ min: 0, max: 0xffff_ffff });

const ip = fc
  .oneof(
    fc.uint8Array({ minLength: 4, maxLength: 4 }),
    fc.uint8Array({ minLength: 16, maxLength: 16 }),
  )
  .map(ipFromBytes);
const block = fc
  .tuple(ip, fc.integer({ min: 0, max: 128 }))
  .map(([address, length]) => blockOf(address, address.includes(":") ? length : length % 33));
const serviceKey = fc.tuple(label, label).map(([ns, host]) => serviceKeyOf(ns, host));
const policyKey = fc.tuple(label, label).map(([ns, name]) => policyKeyOf(ns, name));

const gateway: fc.Arbitrary<GatewayAddress> = fc.oneof(
  record({ kind: fc.constant("hostname" as const), service: serviceKey, hbonePort: port }),
  record({ kind: fc.constant("address" as const), network: text, ip, hbonePort: port }),
);
const optional = <Value>(arbitrary: fc.Arbitrary<Value>) =>
  fc.option(arbitrary, { nil: undefined, freq: 2 });
const list = <Value>(arbitrary: fc.Arbitrary<Value>) => fc.array(arbitrary, { maxLength: 3 });

const workloads: fc.Arbitrary<Workload> = record({
  uid: fc.string({ minLength: 1 }).map((uid) => uid as WorkloadUid),
  name: text,
  namespace: label,
  addresses: list(ip),
  hostname: text,
  network: text,
  tunnelProtocol: fc.constantFrom("none", "hbone"),
  trustDomain: fc.constantFrom("cluster.local", "example.org"),
  serviceAccount: label,
  node: text,
  clusterId: fc.constantFrom("Kubernetes", "other"),
  canonicalName: text,
  canonicalRevision: text,
  workloadType: fc.constantFrom("deployment", "cronjob", "pod", "job"),
  workloadName: text,
  nativeTunnel: fc.boolean(),
  hostNetwork: fc.boolean(),
  healthy: fc.boolean(),
  policies: list<PolicyKey>(policyKey),
  services: fc
    .array(
      fc.tuple(
        serviceKey,
        fc.array(fc.tuple(port, portOrZero)).map((ports) => new Map(ports)),
      ),
    )
    .map((services) => new Map(services)),
  waypoint: optional(gateway),
  networkGateway: optional(gateway),
  applicationTunnel: optional(
    record({ protocol: fc.constantFrom("none", "proxy"), port: portOrZero }),
  ),
  locality: record({ region: text, zone: text, subzone: text }),
  sameNode: fc.constantFrom("direct" as const, "encrypted" as const),
  capacity: uint32,
});

const services: fc.Arbitrary<Service> = record({
  name: text,
  namespace: label,
  hostname: label,
  addresses: list(record({ network: text, block })),
  ports: list(
    record({
      port,
      targetPort: portOrZero,
      appProtocol: fc.constantFrom("unknown", "http11", "http2", "grpc", "tcp", "tls"),
    }),
  ),
  subjectAltNames: list(text),
  waypoint: optional(gateway),
  weightedWaypoints: list(record({ destination: gateway, weight: uint32 })),
  loadBalancing: optional(
    record({
      routingPreference: list(
        fc.constantFrom("region", "zone", "subzone", "node", "cluster", "network"),
      ),
      mode: fc.constantFrom("unspecified", "strict", "failover", "passthrough"),
      healthPolicy: fc.constantFrom("onlyHealthy", "allowAll"),
    }),
  ),
  ipFamilies: fc.constantFrom("automatic", "ipv4Only", "ipv6Only", "dual"),
  canonical: fc.boolean(),
  visibility: fc.constantFrom("public", "namespace"),
  sessionAffinityMs: optional(fc.integer({ min: 1, max: 86_400_000 })),
} satisfies { [Field in Exclude<keyof Service, "key">]: fc.Arbitrary<Service[Field]> }).map(
  (service) => ({ ...service, key: serviceKeyOf(service.namespace, service.hostname) }),
);

const stringMatch: fc.Arbitrary<StringMatch> = fc.oneof(
  record({ kind: fc.constantFrom("exact", "prefix", "suffix"), value: text }),
  fc.constant({ kind: "presence" } as const),
);
const account = record({ namespace: label, serviceAccount: label });
const match: fc.Arbitrary<Match> = record({
  namespaces: list(stringMatch),
  notNamespaces: list(stringMatch),
  principals: list(stringMatch),
  notPrincipals: list(stringMatch),
  serviceAccounts: list(account),
  notServiceAccounts: list(account),
  sourceIps: list(block),
  notSourceIps: list(block),
  destinationIps: list(block),
  notDestinationIps: list(block),
  destinationPorts: list(portOrZero),
  notDestinationPorts: list(portOrZero),
});
const policies: fc.Arbitrary<Policy> = record({
  name: label,
  namespace: label,
  scope: fc.constantFrom("global", "namespace", "workload"),
  action: fc.constantFrom("allow", "deny"),
  dryRun: fc.boolean(),
  rules: list(list(list(match))),
} satisfies { [Field in Exclude<keyof Policy, "key">]: fc.Arbitrary<Policy[Field]> }).map(
  (policy) => ({ ...policy, key: policyKeyOf(policy.namespace, policy.name) }),
);

describe("encodeWorkloadAddress()", () => {
  it("is undone by decodeAddress()", () => {
    fc.assert(
      fc.property(workloads, (workload) => {
        const decoded = decodeAddress(workload.uid, encodeWorkloadAddress(workload));
        assert.deepEqual(decoded, { kind: "workload", key: workload.uid, workload });
      }),
    );
  });

  it("leaves out what the contract defaults, as istiod does", () => {
    const [workload] = fc.sample(workloads, { numRuns: 1, seed: 1 });
    assert.ok(workload);
    const plain = { trustDomain: "cluster.local", clusterId: "Kubernetes", capacity: 1 };
    const message = encodeWorkload({ ...workload, ...plain });
    const read = fromBinary(WorkloadSchema, toBinary(WorkloadSchema, message));
    assert.deepEqual([read.trustDomain, read.clusterId, read.capacity], ["", "", undefined]);
  });
});

describe("encodeServiceAddress()", () => {
  it("is undone by decodeAddress()", () => {
    fc.assert(
      fc.property(services, (service) => {
        const key: ServiceKey = service.key;
        const decoded = decodeAddress(key, encodeServiceAddress(service));
        assert.deepEqual(decoded, { kind: "service", key, service });
      }),
    );
  });
});

describe("encodeAuthorization()", () => {
  it("is undone by decodeAuthorization()", () => {
    fc.assert(
      fc.property(policies, (policy) => {
        assert.deepEqual(decodeAuthorization(policy.key, encodeAuthorization(policy)), policy);
      }),
    );
  });
});
