import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { difference } from "./snapshot.ts";

describe("difference()", () => {
  it("names what is new or another object, and what is gone", () => {
    const kept = { id: "kept" };
    const before = new Map([
      ["kept", kept],
      ["changed", { id: "old" }],
      ["gone", { id: "gone" }],
    ]);
    const changed = { id: "new" };
    const added = { id: "added" };
    const after = new Map([
      ["kept", kept],
      ["changed", changed],
      ["added", added],
    ]);
    assert.deepEqual(difference(before, after), { changed: [changed, added], removed: ["gone"] });
  });
});
