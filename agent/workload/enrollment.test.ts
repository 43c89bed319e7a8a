import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { IpAddress } from "#core/ip.ts";
import { ABSENT, type Command, type Enrollment, next, type PodEvent } from "./enrollment.ts";
import type { PodUid } from "./pod.ts";
import type { StoredPod } from "./pod-store.ts";

const POD: StoredPod = {
  uid: "u1" as PodUid,
  name: "cart-1",
  namespace: "shop",
  serviceAccount: "cart",
  addresses: ["10.244.1.5" as IpAddress],
  netns: "/run/netns/x",
  netnsCookie: 7n,
  id: 1,
};
const PENDING: Enrollment = { phase: "pending", pod: POD, reason: "" };
const UP: Enrollment = { phase: "up", pod: POD };

const kindsOf = (state: Enrollment, event: PodEvent): readonly Command["kind"][] =>
  next(state, event).commands.map(({ kind }) => kind);

describe("next()", () => {
  it("writes a pod down before it opens it", () => {
    assert.deepEqual(kindsOf(ABSENT, { kind: "put", pod: POD }), ["remember", "open"]);
  });

  it("keeps a pod that could not be opened, blocked, and tries again", () => {
    const { state, commands } = next(PENDING, { kind: "openFailed", reason: "no memory" });
    assert.equal(state.phase === "pending" && state.reason, "no memory");
    assert.deepEqual(commands, [{ kind: "retryAfter", delayMs: 5_000 }]);
    assert.deepEqual(kindsOf(state, { kind: "retryDue" }), ["open"]);
  });

  it("does nothing for a pod that is put again as it is, by whatever path", () => {
    const again = { ...POD, netns: "/proc/12/ns/net" };
    assert.deepEqual(next(UP, { kind: "put", pod: again }), { state: UP, commands: [] });
  });

  it("lets the old namespace go before it opens the new one of the same pod", () => {
    const moved = { ...POD, netnsCookie: 8n };
    const expected = ["release", "drain", "remember", "open"];
    assert.deepEqual(kindsOf(UP, { kind: "put", pod: moved }), expected);
  });

  it("keeps the capture in force where only facts about the pod change", () => {
    const renamed = { ...POD, serviceAccount: "other" };
    assert.deepEqual(kindsOf(UP, { kind: "put", pod: renamed }), ["drain", "remember", "open"]);
  });

  it("ends the capture before the listeners, and the record last", () => {
    assert.deepEqual(kindsOf(UP, { kind: "deleted" }), ["release", "drain", "forget"]);
  });

  it("lets a pod go that was deleted while it waited", () => {
    const { state, commands } = next(PENDING, { kind: "deleted" });
    assert.equal(state.phase, "absent");
    assert.deepEqual(
      commands.map(({ kind }) => kind),
      ["release", "forget"],
    );
  });

  it("removes what a forgotten pod has left in the kernel", () => {
    assert.deepEqual(kindsOf(ABSENT, { kind: "deleted" }), ["release"]);
  });

  it("forgets a pod that makes no sense", () => {
    assert.deepEqual(kindsOf(PENDING, { kind: "openRefused" }), ["release", "forget"]);
  });
});
