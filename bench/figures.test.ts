import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { median, type Rounds, summarize } from "./figures.ts";

const round = (none: number, ours: number) =>
  new Map([
    ["none", new Map([["requests-1", none] as const])],
    ["ours", new Map([["requests-1", ours] as const])],
  ]);

describe("summarize()", () => {
  it("pairs ratios within a round, so that a slow round does not count twice", () => {
    const rounds: Rounds = [round(100, 50), round(10, 5), round(200, 80)];
    const ours = summarize(rounds, "none").find(({ subject }) => subject === "ours");
    assert.deepEqual(
      { median: ours?.median, low: ours?.low, high: ours?.high },
      { median: 50, low: 5, high: 80 },
    );
    assert.deepEqual(
      { ratio: ours?.ratio, low: ours?.ratioLow, high: ours?.ratioHigh },
      { ratio: 0.5, low: 0.4, high: 0.5 },
    );
  });

  it("has no ratio where the baseline is zero or was not measured", () => {
    const ours = summarize([round(0, 5)], "none").find(({ subject }) => subject === "ours");
    assert.equal(ours?.ratio, null);
    assert.equal(summarize([round(1, 5)], "haproxy")[0]?.ratio, null);
  });
});

describe("median()", () => {
  it("is the mean of the two in the middle where their number is even", () => {
    assert.equal(median([4, 1, 3, 2]), 2.5);
    assert.equal(median([5, 1, 3]), 3);
  });
});
