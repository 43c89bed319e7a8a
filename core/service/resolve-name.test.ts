import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { parseIp, parseIpBlock } from "../ip.ts";
import { serviceForTest, workloadForTest } from "./fixtures.ts";
import { MeshIndex } from "./mesh-index.ts";
import { type NameQuestion, resolveName } from "./resolve-name.ts";
import type { Service } from "./service.ts";
import { serviceKeyOf } from "./workload.ts";

const client = workloadForTest("client");
const web = serviceForTest("web");
const vault = serviceForTest("vault", { namespace: "bank" });
const headless = serviceForTest("db", { addresses: [] });
const external = (hostname: string): Service => ({
  ...serviceForTest("external"),
  key: serviceKeyOf("shop", hostname),
  hostname,
  canonical: false,
  addresses: [{ network: "", block: parseIpBlock("240.240.0.1") }],
});
const pods = ["10.0.0.1", "10.0.0.2", "10.0.0.3"].map((ip, at) =>
  workloadForTest(`db-${at}`, {
    addresses: [parseIp(ip)],
    services: new Map([[headless.key, new Map()]]),
    healthy: at > 0,
  }),
);
const index = new MeshIndex();
index.apply({
  services: {
    changed: [web, vault, headless, external("api.example.com"), external("*.wild.example")],
    removed: [],
  },
  workloads: { changed: pods, removed: [] },
});

const SEARCH = ["shop.svc.cluster.local", "svc.cluster.local", "cluster.local"];

function ask(name: string, changes: Partial<NameQuestion> = {}) {
  const answer = resolveName(index, {
    client,
    name,
    family: "ipv4",
    searchDomains: SEARCH,
    random: () => 0.5,
    ...changes,
  });
  return answer.kind === "known" ? [answer.hostname, ...answer.addresses].join(" ") : "unknown";
}

describe("resolveName()", () => {
  for (const [name, expected] of [
    ["web.shop.svc.cluster.local", "web.shop.svc.cluster.local 10.96.0.1"],
    ["WEB.Shop.svc.cluster.local.", "web.shop.svc.cluster.local 10.96.0.1"],
    ["web", "web 10.96.0.1"],
    ["web.shop", "web.shop 10.96.0.1"],
    ["web.shop.svc", "web.shop.svc 10.96.0.1"],
    ["vault.bank", "vault.bank 10.96.0.1"],
    ["vault", "unknown"],
    ["api.example.com", "api.example.com 240.240.0.1"],
    ["a.wild.example", "a.wild.example 240.240.0.1"],
    ["a.b.wild.example", "a.b.wild.example 240.240.0.1"],
    ["wild.example", "unknown"],
    ["example.com", "unknown"],
    ["", "unknown"],
  ] as const) {
    it(`answers "${name}" with "${expected}"`, () => assert.equal(ask(name), expected));
  }

  it("finds a name that the pod's resolver lengthened by a search domain", () => {
    assert.equal(ask("api.example.com.shop.svc.cluster.local"), "api.example.com 240.240.0.1");
    assert.equal(
      ask("api.example.com.corp.test", { searchDomains: ["corp.test"] }),
      ask("api.example.com"),
    );
    assert.equal(ask("api.example.com.corp.test"), "unknown");
  });

  it("has an answer without addresses where the family is missing", () => {
    assert.equal(ask("api.example.com", { family: "ipv6" }), "api.example.com");
    assert.equal(ask("web", { family: "ipv6" }), "web fd96::1");
  });

  it("answers a service without an address by its healthy pods", () => {
    const [hostname, ...addresses] = ask("db").split(" ");
    assert.equal(hostname, "db");
    assert.deepEqual(addresses.toSorted(), ["10.0.0.2", "10.0.0.3"]);
  });
});
