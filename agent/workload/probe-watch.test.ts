import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { MeshError } from "#core/errors.ts";
import { FakeTimers } from "../../test/support/fake-timers.ts";
import { Loggers, parseLogLevels } from "../log.ts";
import { watchProbes } from "./probe-watch.ts";

describe("watchProbes()", () => {
  it("says once what has changed, and goes on after a failure", async () => {
    const lines: string[] = [];
    const write = (text: string) => {
      const { message, reason } = JSON.parse(text) as { message: string; reason?: string };
      lines.push(reason === undefined ? message : `${message}: ${reason}`);
    };
    const loggers = new Loggers({ format: "json", levels: parseLogLevels("info") }, { write });
    const timers = new FakeTimers();
    const answers = [true, true, false, undefined, true];
    const refreshProbes = () => {
      const answer = answers.shift();
      if (answer === undefined) throw new MeshError("KERNEL_CALL_FAILED", "Cannot attach");
      return answer;
    };
    const stop = watchProbes({ refreshProbes }, timers, loggers.for("agent"));
    for (let turn = 0; turn < 4; turn++) await timers.advance(2_000);
    assert.deepEqual(lines, [
      "probes from the node are marked",
      "probes from the node are not marked: there is no such cgroup",
      "probes from the node are not marked: Cannot attach",
      "probes from the node are marked",
    ]);
    stop();
    await timers.advance(10_000);
    assert.equal(answers.length, 0);
  });
});
