import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { type HandOver, type HandOverEvent, next, SERVING } from "./hand-over.ts";

type Kind = HandOverEvent["kind"];

/** @returns where these events lead, and all commands on the way */
function after(...kinds: readonly Kind[]): { phase: HandOver["phase"]; commands: string[] } {
  let state = SERVING;
  const commands: string[] = [];
  for (const kind of kinds) {
    const step = next(state, { kind });
    commands.push(...step.commands.map((command) => command.kind));
    state = step.state;
  }
  return { phase: state.phase, commands };
}

const RELEASED: readonly Kind[] = ["hello", "take", "released"];

describe("next()", () => {
  it("hands over in three steps, and changes nothing before the second", () => {
    assert.deepEqual(after("hello"), { phase: "attended", commands: ["welcome"] });
    assert.deepEqual(after(...RELEASED, "done"), {
      phase: "ceded",
      commands: ["welcome", "startLimit", "release", "sayReleased", "stopLimit", "cede"],
    });
  });

  it("goes on as before where a successor ends that has taken nothing", () => {
    assert.deepEqual(after("hello", "ended"), { phase: "serving", commands: ["welcome"] });
  });

  it("takes everything back where the successor ends in the middle", () => {
    for (const events of [["hello", "take"], RELEASED] as const) {
      const { phase, commands } = after(...events, "ended");
      assert.equal(phase, "serving");
      assert.deepEqual(commands.slice(-2), ["stopLimit", "reclaim"]);
    }
  });

  it("takes everything back at the limit, and again at the end of a successor that lingers", () => {
    const withdrawn = after(...RELEASED, "limitReached");
    assert.equal(withdrawn.phase, "withdrawn");
    assert.deepEqual(withdrawn.commands.slice(-2), ["sayWithdrawn", "reclaim"]);
    assert.equal(after(...RELEASED, "limitReached", "done").phase, "withdrawn");
    const ended = after(...RELEASED, "limitReached", "ended");
    assert.equal(ended.phase, "serving");
    assert.equal(ended.commands.at(-1), "reclaim");
  });

  it("never cedes to a successor that has not asked for anything", () => {
    assert.equal(after("hello", "done").phase, "withdrawn");
    assert.equal(after("hello", "take", "done").phase, "withdrawn");
  });

  it("takes the next successor after one that failed", () => {
    assert.equal(after(...RELEASED, "ended", ...RELEASED, "done").phase, "ceded");
  });

  it("stays ceded, whatever becomes of the successor", () => {
    const before = after(...RELEASED, "done");
    assert.deepEqual(after(...RELEASED, "done", "ended", "hello", "limitReached"), before);
  });
});
