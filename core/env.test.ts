import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { EnvReader, parseBoolean, parseDurationMs, parseIntegerIn, parsePort } from "./env.ts";

describe("EnvReader", () => {
  it("reports every mistake at once, with the name and the reason", () => {
    const read = new EnvReader({ WAIT: "5", PORT: "70000" });
    read.required("NODE_NAME", String);
    read.optional("WAIT", 1_000, parseDurationMs);
    read.optional("PORT", 0, parsePort);
    read.complain("CERT and KEY go together");
    assert.throws(() => read.finish(), {
      code: "SETTINGS_INVALID",
      message: [
        "Cannot read settings:",
        "NODE_NAME is not set",
        'WAIT="5": expected a number and ms, s, m or h',
        'PORT="70000": expected an integer from 0 to 65535',
        "CERT and KEY go together",
      ].join("\n  "),
    });
  });

  it("uses the fallback only where the variable is not set", () => {
    const read = new EnvReader({ A: "7" });
    assert.equal(
      read.optional("A", 1, (text) => parseIntegerIn(text, 0, 9)),
      7,
    );
    assert.equal(read.optional("B", 1, Number), 1);
    assert.doesNotThrow(() => read.finish());
  });
});

describe("parseDurationMs()", () => {
  it("reads milliseconds, seconds, minutes and hours", () => {
    assert.deepEqual(
      ["250ms", "5s", "2m", "24h"].map(parseDurationMs),
      [250, 5_000, 120_000, 86_400_000],
    );
  });
});

describe("parseBoolean()", () => {
  it("refuses what is neither true nor false", () => {
    assert.deepEqual(["true", "1", "false", "0"].map(parseBoolean), [true, true, false, false]);
    assert.throws(() => parseBoolean("yes"), SyntaxError);
  });
});
