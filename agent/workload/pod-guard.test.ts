import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { parsePod, parsePodUid } from "./pod.ts";

const UID = parsePodUid("0b5a7f6e-1111-2222-3333-444455556666");
const BODY = {
  name: "cart-1",
  namespace: "shop",
  serviceAccount: "cart",
  addresses: ["10.244.1.5"],
  netns: "/run/netns/x",
};

describe("parsePod()", () => {
  it("reads on which ports the pod is probed, and what it may send", () => {
    const guards = {
      probePorts: [8080, 1, 65_535],
      strictEgress: { mode: "report", cgroup: "/sys/fs/cgroup/pods/cart" },
    };
    const { probePorts, strictEgress } = parsePod(UID, { ...BODY, ...guards });
    assert.deepEqual({ probePorts, strictEgress }, guards);
  });

  for (const [what, guards, reason] of [
    ["one port", { probePorts: 8080 }, /"probePorts" is no list/],
    ["no port", { probePorts: [0] }, /"probePorts" holds 0/],
    ["a name", { probePorts: ["http"] }, /"probePorts" holds "http"/],
    ["many ports", { probePorts: new Array(65).fill(1) }, /more than 64/],
    ["another mode", { strictEgress: { mode: "on", cgroup: "/x" } }, /mode" is "on": expected/],
    ["no mode", { strictEgress: { cgroup: "/x" } }, /strictEgress.mode/],
    ["no cgroup", { strictEgress: { mode: "report" } }, /strictEgress.cgroup/],
    ["a relative cgroup", { strictEgress: { mode: "report", cgroup: "x" } }, /absolute/],
    ["another field", { strictEgress: { mode: "report", cgroup: "/x", a: 1 } }, /strictEgress.a/],
    ["text", { strictEgress: "enforce" }, /no object/],
  ] as const) {
    it(`refuses ${what}`, () => {
      assert.throws(() => parsePod(UID, { ...BODY, ...guards }), {
        code: "REQUEST_REFUSED",
        message: reason,
      });
    });
  }
});
