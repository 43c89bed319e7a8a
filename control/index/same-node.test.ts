import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Mesh, pod } from "./fixtures.ts";

const NAME = "aquifer.mesh/same-node";

function namespace(value: string): string {
  const metadata = { name: "shop", annotations: { [NAME]: value } };
  return JSON.stringify({ apiVersion: "v1", kind: "Namespace", metadata });
}

describe(`the annotation ${NAME}`, () => {
  const own = (value: string) => pod("a", { annotations: { [NAME]: value } });

  for (const [what, texts, expected] of [
    ["nobody's", [pod("a")], "encrypted"],
    ["the pod's", [own("direct")], "direct"],
    ["the namespace's", [pod("a"), namespace("direct")], "direct"],
    ["the pod's before the namespace's", [own("encrypted"), namespace("direct")], "encrypted"],
  ] as const) {
    it(`is ${what}`, () => {
      assert.equal(new Mesh(...texts).workload("a").sameNode, expected);
    });
  }

  it("is taken for encrypted where it is not known, and reported", () => {
    for (const texts of [[own("Direct")], [pod("a"), namespace("fast")]]) {
      const mesh = new Mesh(...texts);
      assert.equal(mesh.workload("a").sameNode, "encrypted");
      assert.match(mesh.problems.join(), /same-node.*expected "direct" or "encrypted", found "/);
    }
  });
});
