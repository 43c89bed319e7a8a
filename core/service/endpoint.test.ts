import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { parseIp } from "../ip.ts";
import { type ChoiceContext, chooseEndpoint } from "./endpoint.ts";
import { serviceForTest, workloadForTest } from "./fixtures.ts";
import type { LoadBalancing } from "./service.ts";
import type { Workload } from "./workload.ts";

const client = workloadForTest("client", { locality: { region: "r", zone: "z", subzone: "s" } });

const context: ChoiceContext = {
  client,
  servicePort: 80,
  dialled: parseIp("10.96.0.1"),
  tried: new Set(),
  outstanding: () => 0,
  random: () => 0,
};

function chosen(
  workloads: readonly Workload[],
  changes: Partial<ChoiceContext> = {},
  loadBalancing?: LoadBalancing,
): string | undefined {
  const service = serviceForTest("web", { loadBalancing });
  return chooseEndpoint(service, workloads, { ...context, ...changes })?.workload.name;
}

const near = (name: string, zone: string, region = "r") =>
  workloadForTest(name, { locality: { region, zone, subzone: "" } });

describe("chooseEndpoint()", () => {
  it("takes the less loaded of two, per unit of capacity", () => {
    const one = workloadForTest("one");
    const two = workloadForTest("two", { capacity: 4 });
    const outstanding = (uid: string) => (uid === one.uid ? 2 : 4);
    assert.equal(chosen([one, two], { outstanding }), "two");
    assert.equal(chosen([one, two], { outstanding: (uid) => (uid === one.uid ? 0 : 4) }), "one");
  });

  it("gives nothing to an endpoint without capacity", () => {
    const idle = workloadForTest("idle", { capacity: 0 });
    assert.equal(chosen([idle]), undefined);
    assert.equal(chosen([idle, workloadForTest("busy")]), "busy");
  });

  it("spreads equally loaded endpoints over all of them", () => {
    const workloads = ["a", "b", "c"].map((name) => workloadForTest(name));
    let seed = 1;
    const random = () => {
      seed = (seed * 16_807) % 2_147_483_647;
      return seed / 2_147_483_647;
    };
    const counts = new Map<string, number>();
    for (let i = 0; i < 3_000; i++) {
      const name = chosen(workloads, { random }) ?? "";
      counts.set(name, (counts.get(name) ?? 0) + 1);
    }
    for (const name of ["a", "b", "c"]) assert.ok((counts.get(name) ?? 0) > 800, name);
  });

  it("prefers what is near, and falls back to what is far", () => {
    const failover: LoadBalancing = {
      routingPreference: ["network", "region", "zone"],
      mode: "failover",
      healthPolicy: "onlyHealthy",
    };
    const far = near("far", "x", "q");
    const sameRegion = near("region", "x");
    const sameZone = near("zone", "z");
    assert.equal(chosen([far, sameRegion, sameZone], {}, failover), "zone");
    assert.equal(chosen([far, sameRegion], {}, failover), "region");
    assert.equal(chosen([far], {}, failover), "far");
    const tried = new Set([sameZone.uid]);
    assert.equal(chosen([far, sameRegion, sameZone], { tried }, failover), "region");
  });

  it("takes nothing but what is near where that is strict", () => {
    const strict: LoadBalancing = {
      routingPreference: ["node"],
      mode: "strict",
      healthPolicy: "onlyHealthy",
    };
    assert.equal(chosen([workloadForTest("other", { node: "n2" })], {}, strict), undefined);
    assert.equal(chosen([workloadForTest("here")], {}, strict), "here");
  });
});
