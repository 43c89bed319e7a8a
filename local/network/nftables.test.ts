import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { parseIp } from "#core/ip.ts";
import type { Backend } from "../plan/endpoints.ts";
import { rulesetOf } from "./nftables.ts";

function backend(change: Partial<Backend> = {}): Backend {
  return {
    service: "shop/web",
    address: parseIp("10.96.0.11"),
    port: 80,
    protocol: "TCP",
    affinity: false,
    targets: [
      { ip: parseIp("10.244.1.2"), port: 8080 },
      { ip: parseIp("10.244.2.2"), port: 8080 },
    ],
    ...change,
  };
}

describe("rulesetOf()", () => {
  it("replaces the table in one transaction, whether it was there or not", () => {
    assert.match(rulesetOf([], []), /^table inet aquifer\ndelete table inet aquifer\ntable inet/);
  });

  it("sends connections to a random endpoint", () => {
    const rules = rulesetOf([backend()], []);
    const to =
      "dnat ip to numgen random mod 2 map { 0 : 10.244.1.2 . 8080, 1 : 10.244.2.2 . 8080 }";
    assert.ok(rules.includes(`chain service0 { meta l4proto tcp ${to}; }`), rules);
    assert.ok(rules.includes("vmap { 10.96.0.11 . tcp . 80 : goto service0 }"), rules);
  });

  it("sends a client to the same endpoint where the service asks for it", () => {
    assert.match(rulesetOf([backend({ affinity: true })], []), /dnat ip to jhash ip saddr mod 2/);
  });

  it("keeps the families apart", () => {
    const six = backend({
      address: parseIp("fd96::b"),
      protocol: "UDP",
      targets: [{ ip: parseIp("fd44:1::2"), port: 53 }],
    });
    const rules = rulesetOf([backend(), six], []);
    assert.ok(rules.includes("meta l4proto udp dnat ip6 to numgen random mod 1 map"), rules);
    assert.ok(
      rules.includes("ip6 daddr . meta l4proto . th dport vmap { fd96::b . udp . 80"),
      rules,
    );
  });

  it("has no rule for a port without endpoints: the address itself refuses", () => {
    const rules = rulesetOf([backend({ targets: [] })], []);
    assert.doesNotMatch(rules, /10\.96\.0\.11/);
    assert.match(rules, /ip daddr 10\.96\.0\.0\/16 ip daddr != 10\.96\.0\.10 goto refuse/);
  });

  it("hides a pod's own address from itself", () => {
    const rules = rulesetOf([], [parseIp("10.244.1.2"), parseIp("fd44:1::2")]);
    assert.match(rules, /set self-ip \{ [^}]*elements = \{ 10\.244\.1\.2 \. 10\.244\.1\.2 \}; \}/);
    assert.match(rules, /ip6 saddr \. ip6 daddr @self-ip6 masquerade/);
  });
});
