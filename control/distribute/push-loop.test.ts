import assert from "node:assert/strict";
import { describe, it, mock } from "node:test";
import { EMPTY_SNAPSHOT } from "#core/snapshot.ts";
import { startPushLoop } from "./push-loop.ts";

/** A loop, the moments at which it pushed, and a clock to move. */
function start() {
  let nowMs = 1_000;
  mock.timers.enable({ apis: ["setTimeout"] });
  mock.method(performance, "now", () => nowMs);
  const pushedAtMs: number[] = [];
  const listeners = new Set<() => void>();
  const source = {
    current: () => EMPTY_SNAPSHOT,
    onChange: (listener: () => void) => {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
  };
  const stop = startPushLoop(source, () => pushedAtMs.push(nowMs - 1_000));
  const change = () => {
    for (const listener of listeners) listener();
  };
  const pass = (durationMs: number) => {
    for (let step = 0; step < durationMs; step++) {
      nowMs += 1;
      mock.timers.tick(1);
    }
  };
  return { stop, change, pass, pushedAtMs, listeners };
}

describe("startPushLoop()", () => {
  it("pushes a single change after a moment in which others may join it", (t) => {
    t.after(() => mock.reset());
    const { change, pass, pushedAtMs } = start();
    change();
    pass(5);
    change();
    pass(500);
    assert.deepEqual(pushedAtMs, [10]);
  });

  it("pushes every 100 ms while changes go on, the first one at once", (t) => {
    t.after(() => mock.reset());
    const { change, pass, pushedAtMs } = start();
    for (let round = 0; round < 350; round++) {
      change();
      pass(1);
    }
    assert.deepEqual(pushedAtMs, [10, 110, 210, 310]);
  });

  it("pushes no more once it is stopped", (t) => {
    t.after(() => mock.reset());
    const { change, pass, pushedAtMs, stop, listeners } = start();
    change();
    stop();
    pass(500);
    assert.deepEqual([pushedAtMs.length, listeners.size], [0, 0]);
  });
});
