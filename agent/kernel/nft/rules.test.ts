import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { captureRules, removalRules, replyRoute, replyRule } from "./rules.ts";

describe("captureRules()", () => {
  const lines = (isBlocked: boolean) => captureRules(isBlocked).split("\n");

  it("replaces the whole table, whether there is one or not", () => {
    assert.deepEqual(lines(false).slice(0, 3), [
      "table inet aquifer_v1",
      "flush table inet aquifer_v1",
      "table inet aquifer_v1 {",
    ]);
  });

  it("leads to the agent's ports, of both families", () => {
    const redirects = lines(false).filter((line) => line.includes("redirect to"));
    assert.deepEqual(
      redirects.map((line) => /redirect to :(\d+)$/.exec(line)?.[1]),
      ["15001", "15006"],
    );
  });

  it("redirects nothing of a blocked pod's own, which its gate then refuses", () => {
    assert.doesNotMatch(captureRules(true), /:15001/);
    assert.match(captureRules(true), /fib daddr type != local reject with tcp reset/);
  });

  it("has gates that ask neither conntrack nor a mark of what arrives", () => {
    const gate = /chain arrive_gate \{(.*?)\n {2}\}/s.exec(captureRules(false))?.[1] ?? "";
    assert.match(gate, /tcp dport != \{ 15006, 15008 \} reject/);
    assert.doesNotMatch(gate, /\bct\b|\bmark\b/);
  });
});

describe("removalRules()", () => {
  it("make the table before they delete it, since it may be missing", () => {
    assert.equal(removalRules(), "table inet aquifer_v1\ndelete table inet aquifer_v1\n");
  });
});

describe("the way back to the agent", () => {
  it("is a rule and a route of each family", () => {
    assert.equal(
      replyRule("ipv4", "add").join(" "),
      "-4 rule add pref 32764 fwmark 273 lookup 15001",
    );
    assert.equal(replyRoute("ipv6").join(" "), "-6 route replace local ::/0 dev lo table 15001");
  });
});
