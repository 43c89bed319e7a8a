import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { formatSpiffeId, parseSpiffeId, partsOfSpiffeId, spiffeIdOf } from "./spiffe-id.ts";

describe("parseSpiffeId()", () => {
  it("takes an identity apart and puts it together again", () => {
    const text = "spiffe://cluster.local/ns/shop/sa/cart";
    assert.equal(formatSpiffeId(partsOfSpiffeId(parseSpiffeId(text))), text);
  });

  for (const text of [
    "",
    "https://cluster.local/ns/shop/sa/cart",
    "spiffe://cluster.local/ns/shop/sa/cart/",
    "spiffe://cluster.local/ns/shop/sa/",
    "spiffe://cluster.local/ns/a/b/sa/cart",
    "spiffe://Cluster.Local/ns/shop/sa/cart",
    "spiffe://cluster.local/sa/cart/ns/shop",
    "spiffe:///ns/shop/sa/cart",
    "spiffe://cluster.local/ns/shop/sa/cart\n",
    `spiffe://cluster.local/ns/shop/sa/${"a".repeat(2048)}`,
  ]) {
    it(`refuses ${JSON.stringify(text.slice(0, 60))}`, () => {
      assert.throws(() => parseSpiffeId(text), { code: "IDENTITY_INVALID" });
      assert.equal(spiffeIdOf(text), undefined);
    });
  }

  it("refuses to build one from a part with a slash", () => {
    const parts = { trustDomain: "cluster.local", namespace: "a/sa/b", serviceAccount: "c" };
    assert.throws(() => formatSpiffeId(parts), { code: "IDENTITY_INVALID" });
  });
});
