import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { attest } from "./attest.ts";

const rules = {
  trustDomain: "cluster.local",
  placement: {
    podsOnNode: (node: string) =>
      node === "n1" ? [{ namespace: "shop", serviceAccount: "cart" }] : [],
  },
};
const asked = (identity: string | undefined, node = "n1") => {
  const outcome = attest({ kind: "node", node }, identity, rules);
  return outcome.kind === "confirmed" ? outcome.identity : outcome.reason;
};
const CART = "spiffe://cluster.local/ns/shop/sa/cart";
const PREFIX = "request impersonation authentication failure: node";

describe("attest()", () => {
  it("confirms the identity of a pod on the caller's own node", () => {
    assert.equal(asked(CART), CART);
  });

  it("refuses it to every other node", () => {
    const reason = `asked for "${CART}", and runs no pod with that service account`;
    assert.equal(asked(CART, "n2"), `${PREFIX} "n2" ${reason}`);
  });

  it("takes namespace and service account together", () => {
    for (const other of ["ns/shop/sa/web", "ns/bank/sa/cart", "ns/cart/sa/shop"]) {
      assert.match(asked(`spiffe://cluster.local/${other}`), /runs no pod with that/);
    }
  });

  // istiod does not look at it, and signs.
  it("refuses a foreign trust domain", () => {
    const foreign = "spiffe://example.org/ns/shop/sa/cart";
    const reason = `asked for "${foreign}", and the trust domain here is "cluster.local"`;
    assert.equal(asked(foreign), `${PREFIX} "n1" ${reason}`);
  });

  it("refuses what is no identity, and quotes no more of it than a log can bear", () => {
    for (const text of ["", "cart", `${CART}/x`, "spiffe://cluster.local/ns/shop/sa/"]) {
      assert.equal(asked(text), `${PREFIX} "n1" asked for "${text}", which is no identity`);
    }
    assert.ok(asked("x".repeat(10_000)).length < 400);
  });

  it("refuses a node that asks for itself: it is no workload", () => {
    assert.equal(asked(undefined), `${PREFIX} "n1" has no identity of its own, and named no other`);
  });
});
