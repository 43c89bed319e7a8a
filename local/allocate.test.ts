import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { assignAddresses, NumberPool } from "./allocate.ts";
import type { IpFamily, ServiceObject } from "./object/object.ts";

function service(name: string, requested: readonly string[] = []): ServiceObject {
  const families: readonly IpFamily[] = ["IPv4", "IPv6"];
  return {
    kind: "Service",
    metadata: { namespace: "shop", name, labels: {}, annotations: {} },
    selector: {},
    ports: [],
    addressing: { kind: "virtual", requested },
    families,
    publishNotReady: false,
    affinity: false,
    raw: {},
  };
}

const NONE = new Map();

describe("NumberPool", () => {
  it("hands a number that came back out again as late as it can", () => {
    const pool = new NumberPool({ first: 2, last: 4 });
    assert.deepEqual([pool.take(), pool.take()], [2, 3]);
    pool.release(2);
    assert.deepEqual([pool.take(), pool.take(), pool.take()], [4, 2, undefined]);
  });
});

describe("assignAddresses()", () => {
  it("gives each service an address of each family", () => {
    const { addresses } = assignAddresses([service("a"), service("b")], NONE);
    assert.deepEqual(Object.fromEntries(addresses), {
      "Service shop/a": ["10.96.0.11", "fd96::b"],
      "Service shop/b": ["10.96.0.12", "fd96::c"],
    });
  });

  it("lets services keep what they have, whoever comes and goes", () => {
    const before = assignAddresses([service("a"), service("b")], NONE).addresses;
    const { addresses } = assignAddresses([service("c"), service("b")], before);
    assert.deepEqual(addresses.get("Service shop/b"), ["10.96.0.12", "fd96::c"]);
    assert.deepEqual(addresses.get("Service shop/c"), ["10.96.0.11", "fd96::b"]);
  });

  it("gives what is asked for first, and refuses it to a second", () => {
    const services = [service("a"), service("b", ["10.96.0.11"]), service("c", ["10.96.0.11"])];
    const { addresses, refused } = assignAddresses(services, NONE);
    assert.deepEqual(addresses.get("Service shop/b"), ["10.96.0.11"]);
    assert.deepEqual(addresses.get("Service shop/a"), ["10.96.0.12", "fd96::c"]);
    assert.equal(refused.get("Service shop/c"), "10.96.0.11 is the address of Service shop/b");
  });

  it("refuses addresses that are not to be had", () => {
    const services = [service("a", ["10.0.0.1"]), service("b", ["10.96.0.10"])];
    assert.deepEqual(Object.fromEntries(assignAddresses(services, NONE).refused), {
      "Service shop/a": "10.0.0.1 is not in 10.96.0.0/16",
      "Service shop/b": "10.96.0.10 is the address of the cluster DNS",
    });
  });
});
