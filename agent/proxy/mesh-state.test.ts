import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { Connection } from "#core/policy/policy.ts";
import type { Relay } from "#wire/hbone/engine.ts";
import { FakeTimers } from "../../test/support/fake-timers.ts";
import { parseIp, policy, workload } from "../../test/support/mesh-builders.ts";
import { Loggers, parseLogLevels } from "../log.ts";
import { LiveInbound } from "./live-inbound.ts";
import { MeshState } from "./mesh-state.ts";

const STORE = workload({ name: "store", namespace: "shop", addresses: [parseIp("10.0.0.1")] });
const CONNECTION: Connection = {
  sourceIdentity: undefined,
  sourceIp: parseIp("10.0.0.9"),
  destinationIp: parseIp("10.0.0.1"),
  destinationPort: 80,
};
const NAMED = policy("named", { namespace: "shop", scope: "workload" });

function createState() {
  const timers = new FakeTimers();
  const state = new MeshState({ network: "", clusterId: "Kubernetes", timers });
  return { timers, state };
}

describe("MeshState", () => {
  it("waits for a workload that discovery is about to name, 5 s at most", async () => {
    const { state, timers } = createState();
    const found = state.waitForLocalWorkload(STORE);
    state.apply({ workloads: { changed: [STORE], removed: [] } });
    assert.equal(await found, STORE);
    const missing = state.waitForLocalWorkload({ ...STORE, name: "other", addresses: [] });
    await timers.advance(5_000);
    assert.equal(await missing, undefined);
  });

  it("does not take the pod that had the address before for the one that has it now", () => {
    const { state } = createState();
    state.apply({ workloads: { changed: [STORE], removed: [] } });
    const newcomer = { ...STORE, name: "newcomer" };
    assert.equal(state.localWorkload(newcomer), undefined);
    assert.equal(state.localWorkload({ ...STORE, serviceAccount: "other" }), undefined);
  });

  it("finds a pod by its address where another cluster's id is in its uid", () => {
    const { state } = createState();
    const uid = "c2//Pod/shop/store" as typeof STORE.uid;
    const elsewhere = { ...STORE, uid };
    state.apply({ workloads: { changed: [elsewhere], removed: [] } });
    assert.equal(state.localWorkload(STORE), elsewhere);
  });

  it("denies after 5 s where a named policy has not come", async () => {
    const { state, timers } = createState();
    const store = { ...STORE, policies: [NAMED.key] };
    state.apply({ workloads: { changed: [store], removed: [] } });
    assert.deepEqual(state.unknownPolicies(store), [NAMED.key]);
    const decision = state.decide(STORE, store, CONNECTION);
    await timers.advance(5_000);
    assert.deepEqual(await decision, { verdict: "deny", because: "policyUnknown", by: NAMED.key });
  });
});

describe("LiveInbound", () => {
  function createLive() {
    const { state, timers } = createState();
    const loggers = new Loggers(
      { format: "json", levels: parseLogLevels("off") },
      { write: () => undefined },
    );
    const live = new LiveInbound(state, timers, loggers.for("policy"), () => undefined);
    const aborted: string[] = [];
    const relay: Relay = {
      ended: new Promise(() => undefined),
      bytes: () => ({ fromDownstream: 0, toDownstream: 0 }),
      abort: (reason) => aborted.push(reason),
    };
    state.apply({ workloads: { changed: [STORE], removed: [] } });
    return { state, timers, live, relay, aborted };
  }

  it("gives a policy that has just been named 5 s to come", async () => {
    const { state, timers, live, relay, aborted } = createLive();
    live.watch(STORE, STORE, CONNECTION, relay);
    const renamed = { ...STORE, policies: [NAMED.key] };
    state.apply({ workloads: { changed: [renamed], removed: [] } });
    await timers.advance(4_000);
    assert.deepEqual(aborted, []);
    await timers.advance(1_100);
    assert.deepEqual(aborted, ['policy "shop/named" is not known yet']);
  });

  it("judges again at once: policy may have changed while it was being connected", () => {
    const { state, live, relay, aborted } = createLive();
    const nobody = policy("nobody", { namespace: "shop", rules: [[]] });
    state.apply({ policies: { changed: [nobody], removed: [] } });
    const verdictOf = live.watch(STORE, STORE, CONNECTION, relay);
    assert.deepEqual(aborted, ['denied by policy "shop/nobody"']);
    assert.equal(verdictOf()?.policy, "shop/nobody");
  });

  it("goes on judging a pod that discovery has lost", async () => {
    const { state, timers, live, relay, aborted } = createLive();
    live.watch(STORE, STORE, CONNECTION, relay);
    state.apply({ workloads: { changed: [], removed: [STORE.uid] } });
    const nobody = policy("nobody", { namespace: "shop", rules: [[]] });
    state.apply({ policies: { changed: [nobody], removed: [] } });
    await timers.advance(100);
    assert.equal(aborted.length, 1);
  });
});
