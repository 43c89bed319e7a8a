import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { EMPTY_MATCH } from "#core/policy/policy.ts";
import { MeshIndex } from "#core/service/mesh-index.ts";
import { parseSpiffeId } from "#core/spiffe-id.ts";
import { parseIp, policy, service, workload } from "../../test/support/mesh-builders.ts";
import type { PodUid } from "../workload/pod.ts";
import { configDump } from "./config-dump.ts";

const shop = service("store", "10.96.0.5", { namespace: "shop" });
const store = workload({
  name: "store-1",
  namespace: "shop",
  addresses: [parseIp("10.244.1.5")],
  services: new Map([[shop.key, new Map([[80, 8080]])]]),
});
const index = new MeshIndex();
index.apply({
  workloads: { changed: [store], removed: [] },
  services: { changed: [shop], removed: [] },
  policies: {
    changed: [
      policy("p", {
        namespace: "shop",
        rules: [[[{ ...EMPTY_MATCH, namespaces: [{ kind: "prefix", value: "a" }] }]]],
      }),
    ],
    removed: [],
  },
});
const dump = configDump({
  index,
  certificates: [
    {
      identity: parseSpiffeId("spiffe://cluster.local/ns/shop/sa/store"),
      state: "Available",
      issued: {
        identity: parseSpiffeId("spiffe://cluster.local/ns/shop/sa/store"),
        chainPem: ["leaf"],
        rootsPem: ["root"],
        validity: { notBeforeMs: 0, notAfterMs: 86_400_000 },
        serialNumber: "AB",
      },
      error: undefined,
    },
  ],
  pods: [
    {
      pod: {
        uid: "u1" as PodUid,
        name: "store-1",
        namespace: "shop",
        serviceAccount: "store",
        addresses: store.addresses,
        netns: "/run/netns/x",
      },
      state: "up",
      reason: undefined,
    },
  ],
  connections: [],
  config: {},
  version: "1.2.3",
});

describe("configDump()", () => {
  it("has the parts that istioctl looks for", () => {
    assert.deepEqual(Object.keys(dump), [
      "workloads",
      "services",
      "policies",
      "stagedServices",
      "staticConfig",
      "version",
      "config",
      "certificates",
      "workloadState",
    ]);
  });

  it("describes workloads, services and policies in its words", () => {
    const [first] = dump.workloads;
    assert.deepEqual(
      [first?.protocol, first?.workloadIps, first?.status],
      ["HBONE", ["10.244.1.5"], "Healthy"],
    );
    assert.deepEqual(dump.services[0]?.vips, ["/10.96.0.5"]);
    assert.deepEqual(dump.services[0]?.ports, { 80: 8080 });
    assert.deepEqual(Object.keys(dump.services[0]?.endpoints ?? {}), [store.uid]);
    assert.deepEqual(dump.policies[0]?.rules, [[[{ namespaces: [{ Prefix: "a" }] }]]]);
    assert.deepEqual([dump.policies[0]?.scope, dump.policies[0]?.action], ["Namespace", "Deny"]);
  });

  it("shows certificates, without their keys", () => {
    assert.deepEqual(dump.certificates[0], {
      identity: "spiffe://cluster.local/ns/shop/sa/store",
      state: "Available",
      certChain: [
        {
          pem: Buffer.from("leaf").toString("base64"),
          serialNumber: "AB",
          validFrom: "1970-01-01T00:00:00Z",
          expirationTime: "1970-01-02T00:00:00Z",
        },
      ],
      rootCerts: [{ pem: Buffer.from("root").toString("base64") }],
    });
  });

  it("says how each pod is doing", () => {
    assert.deepEqual(dump.workloadState.u1, {
      state: "Up",
      connections: { inbound: [], outbound: [] },
      info: { name: "store-1", namespace: "shop", serviceAccount: "store" },
    });
  });
});
