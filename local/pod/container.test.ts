import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { ProbeSpec } from "../object/object.ts";
import {
  type Container,
  type ContainerEvent,
  type ContainerRules,
  INITIAL,
  isReady,
  next,
  podPhase,
  restartDelayMs,
} from "./container.ts";
import { count, delayMs, firstDelayMs, UNPROBED } from "./probe.ts";

const PROBE: ProbeSpec = {
  handler: { kind: "tcpSocket", port: 80, host: undefined },
  initialDelayMs: 0,
  periodMs: 10_000,
  timeoutMs: 1_000,
  successThreshold: 1,
  failureThreshold: 3,
};
const PLAIN: ContainerRules = { startup: undefined, readiness: undefined, restartPolicy: "Always" };
const started: ContainerEvent = { kind: "started", nowMs: 1_000 };
const exited = (code: number, nowMs = 2_000): ContainerEvent => ({ kind: "exited", nowMs, code });

function after(rules: ContainerRules, ...events: readonly ContainerEvent[]) {
  let state: Container = INITIAL;
  let commands: readonly unknown[] = [];
  for (const event of events) ({ state, commands } = next(state, event, rules));
  return { state, commands };
}

describe("next() for a container", () => {
  it("is ready at once where nobody asks", () => {
    assert.ok(isReady([after(PLAIN, started).state]));
  });

  it("is ready when its probes have said so, startup first", () => {
    const rules = { ...PLAIN, startup: PROBE, readiness: PROBE };
    const ready: ContainerEvent = { kind: "probed", probe: "readiness", healthy: true };
    const up: ContainerEvent = { kind: "probed", probe: "startup", healthy: true };
    assert.equal(isReady([after(rules, started).state]), false);
    assert.equal(isReady([after(rules, started, ready).state]), false);
    assert.equal(isReady([after(rules, started, up).state]), false);
    assert.equal(isReady([after(rules, started, up, ready).state]), true);
  });

  it("starts again at once after the first end, and ever later after the next", () => {
    assert.deepEqual(after(PLAIN, started, exited(1)).commands, [{ kind: "start", delayMs: 0 }]);
    const twice = after(PLAIN, started, exited(1), started, exited(1));
    assert.deepEqual(twice.commands, [{ kind: "start", delayMs: 1_000 }]);
    assert.equal(twice.state.phase === "waiting" && twice.state.reason, "CrashLoopBackOff");
    assert.deepEqual([3, 4, 20].map(restartDelayMs), [2_000, 4_000, 60_000]);
  });

  it("forgives after ten minutes", () => {
    const late = after(PLAIN, started, exited(1), started, exited(1, 700_000));
    assert.deepEqual(late.commands, [{ kind: "start", delayMs: 0 }]);
    assert.equal(late.state.restarts, 2);
  });

  it("stays ended as its policy says", () => {
    const never = { ...PLAIN, restartPolicy: "Never" } as const;
    const onFailure = { ...PLAIN, restartPolicy: "OnFailure" } as const;
    assert.equal(after(never, started, exited(1)).state.phase, "ended");
    assert.equal(after(onFailure, started, exited(0)).state.phase, "ended");
    assert.equal(after(onFailure, started, exited(1)).state.phase, "waiting");
  });

  it("stops a container that is not alive, and ignores a probe that comes too late", () => {
    const dead: ContainerEvent = { kind: "probed", probe: "liveness", healthy: false };
    const stopping = after(PLAIN, started, dead);
    assert.deepEqual(stopping.commands, [{ kind: "stop", reason: "liveness probe failed" }]);
    assert.deepEqual(after(PLAIN, started, dead, dead).commands, []);
    assert.equal(after(PLAIN, started, dead, exited(143)).state.phase, "waiting");
  });

  it("adds up to the phase of the pod", () => {
    const never = { ...PLAIN, restartPolicy: "Never" } as const;
    const done = after(never, started, exited(0)).state;
    const failed = after(never, started, exited(1)).state;
    const running = after(PLAIN, started).state;
    assert.equal(podPhase([INITIAL, running]), "Pending");
    assert.equal(podPhase([running, done]), "Running");
    assert.equal(podPhase([done, done]), "Succeeded");
    assert.equal(podPhase([done, failed]), "Failed");
  });
});

describe("count() of a probe", () => {
  const outcomes = (kind: "readiness" | "liveness", spec: ProbeSpec, text: string) => {
    let state = UNPROBED;
    for (const letter of text) state = count(kind, spec, state, letter === "+");
    return state.healthy;
  };

  it("needs as many in a row as its thresholds say", () => {
    const spec = { ...PROBE, successThreshold: 2, periodMs: 10 };
    assert.equal(outcomes("readiness", spec, "+"), undefined);
    assert.equal(outcomes("readiness", spec, "+-+"), undefined);
    assert.equal(outcomes("readiness", spec, "++"), true);
    assert.equal(outcomes("readiness", spec, "++--"), true);
    assert.equal(outcomes("readiness", spec, "++---"), false);
  });

  it("asks often until the first success, without counting those failures", () => {
    let state = UNPROBED;
    const delays: number[] = [];
    for (let attempt = 0; attempt < 9; attempt++) {
      delays.push(delayMs("readiness", PROBE, state));
      state = count("readiness", PROBE, state, false);
    }
    assert.deepEqual(delays, [50, 100, 200, 400, 800, 1_600, 3_200, 6_400, 10_000]);
    assert.equal(state.failures, 1);
  });

  it("never asks early whether a container is alive", () => {
    assert.equal(firstDelayMs("liveness", PROBE), 10_000);
    assert.equal(firstDelayMs("readiness", PROBE), 0);
    assert.equal(outcomes("liveness", PROBE, "---"), false);
  });
});
