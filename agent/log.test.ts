import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { formatLogLevels, Loggers, parseLogLevels } from "./log.ts";

const collect = (format: "json" | "plain", levels: string) => {
  const lines: string[] = [];
  const loggers = new Loggers(
    { format, levels: parseLogLevels(levels) },
    { write: (line: string) => lines.push(line) },
  );
  return { lines, loggers };
};

describe("parseLogLevels()", () => {
  it("reads a level for all and others for some", () => {
    assert.equal(formatLogLevels(parseLogLevels("debug, access=off")), "debug,access=off");
  });

  it("refuses a level that does not exist", () => {
    assert.throws(() => parseLogLevels("loud"), /"loud" is none of off, error/);
    assert.throws(() => parseLogLevels("a=b=c"), SyntaxError);
    assert.throws(() => parseLogLevels(""), SyntaxError);
  });
});

describe("Loggers", () => {
  it("writes JSON with time, level, target and message", () => {
    const { lines, loggers } = collect("json", "info");
    loggers.for("access").info({ "src.addr": "10.0.0.1:1" }, "connection complete");
    const { time, ...rest } = JSON.parse(lines[0] ?? "");
    assert.match(time, /^\d{4}-\d\d-\d\dT/);
    assert.deepEqual(rest, {
      level: "info",
      target: "access",
      "src.addr": "10.0.0.1:1",
      message: "connection complete",
    });
  });

  it("writes plain lines separated by tabs, values with spaces quoted", () => {
    const { lines, loggers } = collect("plain", "info");
    loggers.for("access").warn({ "src.addr": "10.0.0.1:1", error: "no route" }, "failed");
    assert.match(
      lines[0] ?? "",
      /^\S+\twarn\taccess\tfailed\tsrc\.addr=10\.0\.0\.1:1 error="no route"\n$/,
    );
  });

  it("silences one target and changes levels while it runs", () => {
    const { lines, loggers } = collect("json", "info,access=off");
    loggers.for("access").error("unheard");
    loggers.for("xds").debug("unheard");
    loggers.setLevels(parseLogLevels("debug"));
    loggers.for("access").debug("heard");
    loggers.reset();
    loggers.for("access").error("unheard");
    assert.equal(lines.length, 1);
  });
});
