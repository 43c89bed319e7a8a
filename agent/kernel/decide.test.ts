import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { describe, it } from "node:test";
import { compileC } from "../../test/support/compile.ts";

const SOURCE = new URL("../../bpf/decide_test.c", import.meta.url).pathname;
const SANITIZERS = ["-Werror", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"];

describe("bpf/include/decide.h", () => {
  it("decides as its tables say, and reads nothing that is not there", () => {
    const program = compileC(SOURCE, SANITIZERS);
    try {
      const { status, stdout, stderr } = spawnSync(program.path, { encoding: "utf8" });
      assert.equal(stderr, "");
      assert.match(stdout, /^\d+ rows, 0 failures\n$/);
      assert.equal(status, 0);
    } finally {
      program.remove();
    }
  });
});
