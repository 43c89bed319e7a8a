import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { parseIp, parseIpBlock } from "../ip.ts";
import type { Policy } from "../policy/policy.ts";
import { serviceForTest, workloadForTest } from "./fixtures.ts";
import { MeshIndex } from "./mesh-index.ts";
import { policyKeyOf, type Workload, type WorkloadUid } from "./workload.ts";

const IP = parseIp("10.0.0.1");
const connection = {
  sourceIdentity: undefined,
  sourceIp: parseIp("10.9.9.9"),
  destinationIp: IP,
  destinationPort: 80,
};

function denyAll(namespace: string, name: string, scope: Policy["scope"]): Policy {
  const key = policyKeyOf(namespace, name);
  return { key, name, namespace, scope, action: "deny", dryRun: false, rules: [[]] };
}

function put(index: MeshIndex, ...changed: Workload[]): void {
  index.apply({ workloads: { changed, removed: [] } });
}

describe("MeshIndex", () => {
  it("finds a workload by address until it is removed", () => {
    const index = new MeshIndex();
    const web = workloadForTest("web");
    put(index, web);
    assert.equal(index.workloadAt("", IP), web);
    assert.equal(index.workloadAt("west", IP), undefined);
    index.apply({ workloads: { changed: [], removed: [web.uid] } });
    assert.equal(index.workloadAt("", IP), undefined);
  });

  it("forgets the old address of a workload that moved", () => {
    const index = new MeshIndex();
    put(index, workloadForTest("web"));
    put(index, workloadForTest("web", { addresses: [parseIp("10.0.0.2")] }));
    assert.equal(index.workloadAt("", IP), undefined);
    assert.equal(index.workloadAt("", parseIp("10.0.0.2"))?.name, "web");
  });

  it("prefers a pod in the mesh among several that claim one address", () => {
    const index = new MeshIndex();
    const entry = workloadForTest("entry", { uid: "c/WorkloadEntry/a" as WorkloadUid });
    const outside = workloadForTest("outside", { tunnelProtocol: "none" });
    const inside = workloadForTest("inside");
    put(index, entry, outside, inside);
    assert.equal(index.workloadAt("", IP)?.name, "inside");
    index.apply({ workloads: { changed: [], removed: [inside.uid] } });
    assert.equal(index.workloadAt("", IP)?.name, "outside");
  });

  it("knows an endpoint that came before its service", () => {
    const index = new MeshIndex();
    const service = serviceForTest("web");
    put(index, workloadForTest("web", { services: new Map([[service.key, new Map()]]) }));
    index.apply({ services: { changed: [service], removed: [] } });
    assert.equal(index.endpointsOf(service.key).length, 1);
  });

  it("hides a service that only its namespace may see", () => {
    const index = new MeshIndex();
    index.apply({
      services: { changed: [serviceForTest("web", { visibility: "namespace" })], removed: [] },
    });
    assert.equal(index.serviceAt("", parseIp("10.96.0.1"), "bank"), undefined);
    assert.equal(index.serviceAt("", parseIp("10.96.0.1"), "shop")?.name, "web");
  });

  it("takes the longest block, and a single address before any block", () => {
    const index = new MeshIndex();
    const block = (name: string, text: string) =>
      serviceForTest(name, { addresses: [{ network: "", block: parseIpBlock(text) }] });
    const services = [block("wide", "10.0.0.0/8"), block("narrow", "10.1.0.0/16")];
    index.apply({ services: { changed: services, removed: [] } });
    assert.equal(index.serviceAt("", parseIp("10.1.2.3"), "shop")?.name, "narrow");
    assert.equal(index.serviceAt("", parseIp("10.2.2.3"), "shop")?.name, "wide");
    index.apply({ services: { changed: [block("single", "10.1.2.3")], removed: [] } });
    assert.equal(index.serviceAt("", parseIp("10.1.2.3"), "shop")?.name, "single");
  });
});

describe("MeshIndex.decide()", () => {
  it("applies the policies of the mesh, of the namespace, and those the workload names", () => {
    for (const [policy, names] of [
      [denyAll("istio-system", "all", "global"), []],
      [denyAll("shop", "all", "namespace"), []],
      [denyAll("shop", "web", "workload"), ["shop/web"]],
    ] as const) {
      const index = new MeshIndex();
      const policies = names.map((name) => policyKeyOf("shop", name.slice("shop/".length)));
      const web = workloadForTest("web", { policies });
      index.apply({ policies: { changed: [policy], removed: [] } });
      assert.equal(index.decide(web, connection).verdict, "deny");
    }
  });

  it("does not apply the policies of another namespace, nor those that nobody names", () => {
    const index = new MeshIndex();
    const foreign = [denyAll("bank", "all", "namespace"), denyAll("shop", "web", "workload")];
    index.apply({ policies: { changed: foreign, removed: [] } });
    assert.equal(index.decide(workloadForTest("web"), connection).verdict, "allow");
  });

  it("denies while a policy that the workload names is not known", () => {
    const index = new MeshIndex();
    const web = workloadForTest("web", { policies: [policyKeyOf("shop", "late")] });
    const decision = index.decide(web, connection);
    assert.deepEqual(decision, { verdict: "deny", because: "policyUnknown", by: "shop/late" });
    const late = { ...denyAll("shop", "late", "workload"), rules: [] };
    index.apply({ policies: { changed: [late], removed: [] } });
    assert.equal(index.decide(web, connection).verdict, "allow");
  });
});
