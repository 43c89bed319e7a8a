import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { MeshIndex } from "#core/service/mesh-index.ts";
import type { Service } from "#core/service/service.ts";
import type { Workload } from "#core/service/workload.ts";
import { parseIp, policy, service, workload } from "../../test/support/mesh-builders.ts";
import type { PodUid } from "../workload/pod.ts";
import { planDirect } from "./plan.ts";

const CART = pod("cart", "10.0.0.1");
const VAULT_SERVICE = service("vault", "10.96.0.9");
const VAULT = pod("vault", "10.0.0.2", { services: new Map([[VAULT_SERVICE.key, new Map()]]) });

function pod(name: string, ip: string, changes: Partial<Workload> = {}): Workload {
  return workload({ name, addresses: [parseIp(ip)], sameNode: "direct", ...changes });
}

/** The plan of a node with these pods, and with others elsewhere. */
function plan(
  pods: readonly Workload[],
  services: readonly Service[] = [],
  elsewhere: readonly Workload[] = [],
) {
  const index = new MeshIndex();
  const none = { removed: [] };
  index.apply({
    workloads: { ...none, changed: [...pods, ...elsewhere] },
    services: { ...none, changed: services },
    policies: { ...none, changed: [policy("closed", { action: "allow", namespace: "shut" })] },
  });
  const numbers = new Map<string, number>();
  const numberOf = (name: string) => {
    const number = numbers.get(name) ?? numbers.size + 1;
    numbers.set(name, number);
    return number;
  };
  const known = pods.map((each) => {
    return { uid: each.name as PodUid, addresses: each.addresses, workload: each };
  });
  return planDirect(index, "", known, numberOf);
}

describe("planDirect()", () => {
  it("gives each class a number, and pods that no policy tells apart the same", () => {
    const twin = pod("twin", "10.0.0.3", { serviceAccount: "cart" });
    const { members } = plan([CART, VAULT, twin]);
    assert.deepEqual(members, [
      { uid: "cart", classId: 1 },
      { uid: "vault", classId: 2 },
      { uid: "twin", classId: 1 },
    ]);
  });

  for (const [what, changes] of [
    ["wants a tunnel", { sameNode: "encrypted" }],
    ["is not captured", { tunnelProtocol: "none" }],
    ["ends tunnels itself", { nativeTunnel: true }],
    ["is in another network", { network: "far" }],
    ["has another address by now", { addresses: [parseIp("10.0.0.77")] }],
  ] as const) {
    it(`leaves out a pod that ${what}`, () => {
      const other = workload({ ...VAULT, ...changes });
      const index = new MeshIndex();
      index.apply({ workloads: { removed: [], changed: [other] } });
      const known = { uid: "vault" as PodUid, addresses: VAULT.addresses, workload: other };
      assert.deepEqual(planDirect(index, "", [known], () => 1).members, []);
    });
  }

  it("has no rows for a pod with a waypoint, and denies where a namespace is shut", () => {
    const gateway = { kind: "address", network: "", ip: parseIp("10.0.0.9"), hbonePort: 15008 };
    const { rows } = plan([
      pod("behind", "10.0.0.4", { waypoint: { ...gateway, kind: "address" } }),
      pod("inside", "10.0.0.5", { namespace: "shut" }),
    ]);
    assert.deepEqual(
      rows.map(({ destination, verdict }) => [destination, verdict]),
      [[2, "deny"]],
    );
  });

  it("resolves a service whose endpoints are here, and counts those that are not", () => {
    const far = pod("far", "10.0.1.1", { node: "n2", services: VAULT.services });
    const { services } = plan([CART, VAULT], [VAULT_SERVICE], [far]);
    assert.deepEqual(services, [
      {
        address: { ip: "10.96.0.9", port: 80 },
        local: [{ ip: "10.0.0.2", port: 8080 }],
        total: 2,
      },
    ]);
  });

  for (const [what, changes] of [
    [
      "with a waypoint",
      { waypoint: { kind: "hostname", service: VAULT_SERVICE.key, hbonePort: 1 } },
    ],
    ["with session affinity", { sessionAffinityMs: 1_000 }],
    ["that only some can see", { visibility: "namespace" }],
  ] as const) {
    it(`leaves a service ${what} to the agent`, () => {
      const stranger = pod("stranger", "10.0.0.6", { namespace: "other" });
      const changed = { ...VAULT_SERVICE, ...changes };
      assert.deepEqual(plan([CART, VAULT, stranger], [changed]).services, []);
    });
  }
});
