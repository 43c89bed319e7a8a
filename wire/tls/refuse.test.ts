import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { parseSpiffeId } from "#core/spiffe-id.ts";
import { refusePeerOutside, refusePeerUnlessOneOf } from "./refuse.ts";

const cart = "spiffe://cluster.local/ns/shop/sa/cart";
const stranger = "spiffe://elsewhere.org/ns/shop/sa/cart";

describe("refusePeerOutside()", () => {
  const refusal = refusePeerOutside("cluster.local");

  it("accepts any identity of the trust domain, among other names", () => {
    assert.equal(refusal([cart]), undefined);
    assert.equal(refusal(["https://example.com", stranger, cart]), undefined);
  });

  it("refuses everybody else, and says who they are", () => {
    assert.match(refusal([stranger]) ?? "", /elsewhere\.org.*expected one in.*"cluster\.local"/);
    assert.match(refusal([]) ?? "", /its identity is none/);
    assert.match(refusal(["spiffe://cluster.local/shop/cart"]) ?? "", /its identity is none/);
    assert.match(refusal(["spiffe://cluster.local.org/ns/a/sa/b"]) ?? "", /expected one in/);
  });
});

describe("refusePeerUnlessOneOf()", () => {
  it("accepts a peer with one of the names", () => {
    assert.equal(refusePeerUnlessOneOf([parseSpiffeId(cart)])([stranger, cart]), undefined);
  });

  it("refuses a peer with another name, and says who was expected", () => {
    const reason = refusePeerUnlessOneOf([parseSpiffeId(cart)])([stranger]);
    assert.equal(reason, `its identity is "${stranger}", expected "${cart}"`);
  });

  it("refuses everybody where nobody is expected", () => {
    assert.notEqual(refusePeerUnlessOneOf([])([cart]), undefined);
  });
});
