import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { ControlQuestions } from "./control-questions.ts";

const STATE = { ready: true, problems: [], current: [] };
const NEVER = new AbortController().signal;

describe("ControlQuestions", () => {
  it("answers with the first word that is young enough", async () => {
    const questions = new ControlQuestions();
    const sent: number[] = [];
    const first = questions.ask((number) => sent.push(number), NEVER);
    const second = questions.ask((number) => sent.push(number), NEVER);
    assert.deepEqual(sent, [1, 2]);
    questions.hear({ ...STATE, current: ["old"] }, 0);
    questions.hear({ ...STATE, current: ["n1"] }, 1);
    questions.hear({ ...STATE, current: ["n2"] }, 2);
    assert.deepEqual((await first)?.current, ["n1"]);
    assert.deepEqual((await second)?.current, ["n2"]);
  });

  it("waits no longer than it is told to", async () => {
    const questions = new ControlQuestions();
    const limit = new AbortController();
    const answer = questions.ask(() => limit.abort(), limit.signal);
    assert.equal(await answer, undefined);
    assert.equal(await questions.ask(() => undefined, limit.signal), undefined);
  });
});
