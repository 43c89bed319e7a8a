import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { LineSplitter } from "./lines.ts";

function split(lengthMax: number, ...chunks: readonly string[]): readonly string[] {
  const seen: string[] = [];
  const splitter = new LineSplitter(
    lengthMax,
    (line) => seen.push(line),
    (start) => seen.push(`too long: ${start}`),
  );
  for (const chunk of chunks) splitter.push(chunk);
  splitter.end();
  return seen;
}

describe("LineSplitter", () => {
  it("joins a line that comes in pieces, and takes the last one without its end", () => {
    assert.deepEqual(split(10, "on", "e\ntwo\n\nthr", "ee"), ["one", "two", "", "three"]);
  });

  it("reports a line that is too long once, and goes on with the next", () => {
    assert.deepEqual(split(3, "abcd\nok\n"), ["too long: abcd", "ok"]);
    assert.deepEqual(split(3, "ab", "cd", "efgh", "i\nok\n"), ["too long: abcd", "ok"]);
    assert.deepEqual(split(3, "abcd", "ef"), ["too long: abcd"]);
  });
});
