import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { type Backoff, backoffDelayMs } from "./backoff.ts";

const backoff: Backoff = { firstDelayMs: 100, delayMsMax: 1_000, factor: 2 };

describe("backoffDelayMs()", () => {
  it("doubles the wait with each failure, up to the longest", () => {
    const delays = [1, 2, 3, 4, 5, 50, 5_000].map((failures) => {
      return backoffDelayMs(backoff, failures, 1);
    });
    assert.deepEqual(delays, [100, 200, 400, 800, 1_000, 1_000, 1_000]);
  });

  it("spreads the wait over the upper half", () => {
    assert.equal(backoffDelayMs(backoff, 2, 0), 100);
    assert.equal(backoffDelayMs(backoff, 2, 0.5), 150);
  });

  it("refuses to plan a retry of something that has not failed", () => {
    for (const failures of [0, -1, Number.NaN]) {
      assert.throws(() => backoffDelayMs(backoff, failures, 0), RangeError);
    }
  });
});
