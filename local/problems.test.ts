import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { LocalProblem } from "#core/local-api.ts";
import { mergeProblems, ProblemTeller } from "./problems.ts";

function problem(change: Partial<LocalProblem>): LocalProblem {
  const where = { file: "/a.yaml", line: 3, object: "Service shop/cart", field: "spec.ports" };
  return { ...where, reason: "is missing", severity: "problem", lastGood: false, ...change };
}

describe("mergeProblems()", () => {
  it("tells a mistake once where control words it in another way", () => {
    const own = [problem({})];
    const control = [problem({ reason: "must not be empty" }), problem({ field: "spec.type" })];
    assert.deepEqual(mergeProblems(own, control), [...own, problem({ field: "spec.type" })]);
  });

  it("tells what is wrong with each pod of a Deployment once", () => {
    assert.deepEqual(mergeProblems([], [problem({}), problem({})]), [problem({})]);
  });

  it("keeps two mistakes in one field, and what is wrong with files", () => {
    const two = [problem({}), problem({ reason: "is too long" })];
    assert.deepEqual(mergeProblems([], two), two);
    const [own, control] = [problem({ object: "", field: "" }), problem({ object: "", field: "" })];
    const other = { ...control, file: "/b.yaml" };
    assert.deepEqual(mergeProblems([own], [other]), [own, other]);
  });
});

describe("ProblemTeller", () => {
  it("says each problem when it appears", () => {
    const said: string[] = [];
    const teller = new ProblemTeller((line) => said.push(line));
    const [first, second] = [problem({}), problem({ field: "spec.type" })];
    teller.tell([first]);
    teller.tell([first, second]);
    teller.tell([second]);
    teller.tell([first]);
    const line = (field: string) => `/a.yaml:3: Service shop/cart: ${field}: is missing`;
    assert.deepEqual(said, [line("spec.ports"), line("spec.type"), line("spec.ports")]);
  });
});
