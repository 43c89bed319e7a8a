import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import path from "node:path";
import process from "node:process";
import { describe, it } from "node:test";

const RUNNER = path.join(import.meta.dirname, "test.ts");

/** Runs some of the tests, as a run of its own within this one. */
function runTests(...args: readonly string[]) {
  const { NODE_TEST_CONTEXT: _, ...env } = process.env;
  const run = spawnSync(process.execPath, [RUNNER, ...args], { encoding: "utf8", env });
  const lines = run.stdout.trimEnd().split("\n");
  return { status: run.status, last: lines.at(-1), tier: lines.at(-2) };
}

describe("tools/test.ts", () => {
  it("ends with the count of what ran", () => {
    const { status, last, tier } = runTests("unit", "core/brand", "core/env.test");
    assert.equal(status, 0);
    assert.match(last ?? "", /^[1-9]\d* passed, 0 failed$/);
    assert.match(tier ?? "", /^unit +[1-9]\d* passed, 0 failed \(1 files\)/);
  });

  it("fails where nothing ran, and says so", () => {
    const { status, last, tier } = runTests("unit", "no/such/test");
    assert.equal(status, 1);
    assert.equal(last, "0 passed, 1 failed");
    assert.match(tier ?? "", /^unit +not run: there is no such test/);
  });
});
