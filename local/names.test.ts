import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { checkRuntimeName, Names } from "./names.ts";

function names(runtime: string): Names {
  return new Names({ runtime, root: "/run/r", cgroupMount: "/cg", pinRoot: "/bpf" });
}

describe("Names", () => {
  it("knows its own from those of a runtime whose name begins the same", () => {
    const [short, long] = [names("shop"), names("shop-two")];
    const pod = { namespace: "default", name: "web" };
    assert.ok(short.isOwnNetns(short.podNetns("n1", pod)));
    assert.ok(short.isOwnNetns(short.netns("fabric")));
    assert.equal(short.isOwnNetns(long.podNetns("n1", pod)), false);
    assert.equal(short.isOwnPinDir("shop-n1"), true);
    assert.equal(short.isOwnPinDir("shop-two-n1"), false);
  });

  it("keeps names within what a file name may be, and apart", () => {
    const pod = (last: string) => ({
      namespace: "a".repeat(63),
      name: `${"b".repeat(200)}${last}`,
    });
    const [one, two] = [names("x").podNetns("n1", pod("1")), names("x").podNetns("n1", pod("2"))];
    assert.ok(one.length <= 200);
    assert.notEqual(one, two);
  });
});

describe("checkRuntimeName()", () => {
  it("refuses names that others could not be told from, or that are too long", () => {
    for (const name of ["Shop", "a--b", "-a", "shop-n1", "fabric", "a".repeat(25)]) {
      assert.throws(() => checkRuntimeName(name), RangeError, name);
    }
    assert.equal(checkRuntimeName("mesh-1234"), "mesh-1234");
  });
});
