import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { parsePod, parsePodUid } from "./pod.ts";

const UID = parsePodUid("0b5a7f6e-1111-2222-3333-444455556666");
const BODY = {
  name: "cart-1",
  namespace: "shop",
  serviceAccount: "cart",
  addresses: ["10.244.1.5", "FD00:0::5"],
  netns: "/run/netns/x",
};

describe("parsePodUid()", () => {
  it("refuses what could not name a directory of the BPF file system", () => {
    for (const text of ["", "a.b", "../etc", "a/b", "x".repeat(65)]) {
      assert.throws(() => parsePodUid(text), { code: "REQUEST_REFUSED" });
    }
  });
});

describe("parsePod()", () => {
  it("reads a pod, with its addresses in their canonical form", () => {
    assert.deepEqual(parsePod(UID, BODY), {
      ...BODY,
      uid: UID,
      addresses: ["10.244.1.5", "fd00::5"],
    });
  });

  it("finds the namespace of a process", () => {
    const { netns, ...rest } = BODY;
    assert.equal(parsePod(UID, { ...rest, pid: 12 }).netns, "/proc/12/ns/net");
  });

  it("reads what the pod's resolver is told", () => {
    const dns = {
      capture: false,
      searchDomains: ["shop.svc.cluster.local", "_x.test."],
      nameservers: ["10.96.0.10", "FD96:0::A"],
    };
    assert.deepEqual(parsePod(UID, { ...BODY, dns }).dns, {
      ...dns,
      nameservers: ["10.96.0.10", "fd96::a"],
    });
    assert.deepEqual(parsePod(UID, { ...BODY, dns: {} }).dns, {});
  });

  const wrong: readonly (readonly [string, unknown, RegExp])[] = [
    ["no object", [], /the body is no object/],
    ["an unknown field", { ...BODY, netnsPath: "/x" }, /unknown field "netnsPath"/],
    ["a missing name", { ...BODY, name: undefined }, /"name" is not a name/],
    ["a name that is a path", { ...BODY, namespace: "../x" }, /"namespace" is not a name/],
    ["no address", { ...BODY, addresses: [] }, /"addresses" has no address/],
    ["a host name", { ...BODY, addresses: ["localhost"] }, /"localhost", which is no IP/],
    ["two of a family", { ...BODY, addresses: ["10.0.0.1", "10.0.0.2"] }, /two of one family/],
    ["both ways", { ...BODY, pid: 1 }, /"netns" or "pid", not both/],
    ["neither way", { ...BODY, netns: undefined }, /"netns" or "pid" is missing/],
    ["resolver settings that are a list", { ...BODY, dns: [] }, /"dns" is no object/],
    ["an unknown one", { ...BODY, dns: { search: [] } }, /unknown field "dns.search"/],
    ["a switch that is text", { ...BODY, dns: { capture: "no" } }, /"dns.capture" is neither/],
    ["a domain with a space", { ...BODY, dns: { searchDomains: ["a b"] } }, /holds "a b"/],
    ["a domain alone", { ...BODY, dns: { searchDomains: "a" } }, /is no list of texts/],
    ["a server by name", { ...BODY, dns: { nameservers: ["ns1"] } }, /"ns1", which is no IP/],
    [
      "more servers than a resolver has",
      { ...BODY, dns: { nameservers: new Array(5).fill("10.0.0.1") } },
      /"dns.nameservers" has more than 4/,
    ],
    ["a relative path", { ...BODY, netns: "x" }, /not an absolute path/],
  ];
  for (const [what, body, message] of wrong) {
    it(`refuses ${what}`, () => {
      assert.throws(() => parsePod(UID, body), { code: "REQUEST_REFUSED", message });
    });
  }
});
