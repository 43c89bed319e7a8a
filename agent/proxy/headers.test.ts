import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { parseSocketAddress } from "#core/ip.ts";
import { workload } from "../../test/support/mesh-builders.ts";
import {
  baggageOf,
  forwardedHeader,
  forwardedHost,
  newTraceparent,
  parseAuthority,
  parseBaggage,
} from "./headers.ts";

describe("baggageOf()", () => {
  it("names a workload in Istio's order, and leaves out what is empty", () => {
    const cart = workload({
      clusterId: "Kubernetes",
      namespace: "shop",
      workloadType: "deployment",
      workloadName: "cart",
      canonicalName: "cart",
      canonicalRevision: "v1",
    });
    assert.equal(
      baggageOf(cart),
      "k8s.cluster.name=Kubernetes,k8s.namespace.name=shop,k8s.deployment.name=cart," +
        "service.name=cart,service.version=v1",
    );
  });
});

describe("parseBaggage()", () => {
  it("reads what another proxy says, whatever else is in it", () => {
    const parsed = parseBaggage(
      "k8s.cluster.name=c1, k8s.namespace.name=shop;p=1,k8s.pod.name=cart,nonsense,=x,cloud.region=r",
    );
    assert.deepEqual(parsed, {
      clusterId: "c1",
      namespace: "shop",
      workloadName: "cart",
      canonicalName: "",
      canonicalRevision: "",
      region: "r",
      zone: "",
    });
  });

  it("cuts values that would fill memory as labels", () => {
    assert.equal(parseBaggage(`service.name=${"x".repeat(10_000)}`).canonicalName.length, 253);
  });
});

describe("forwardedHeader()", () => {
  it("says who connects and by which host name", () => {
    assert.equal(
      forwardedHeader(parseSocketAddress("[fd00::1]:80"), "cart.shop.svc.cluster.local"),
      'for="[fd00::1]:80";host=cart.shop.svc.cluster.local',
    );
    assert.equal(
      forwardedHeader(parseSocketAddress("10.0.0.1:80"), undefined),
      'for="10.0.0.1:80"',
    );
  });
});

describe("forwardedHost()", () => {
  it("finds the host, wherever it stands", () => {
    assert.equal(forwardedHost('for="10.0.0.1:80";host=cart.shop'), "cart.shop");
    assert.equal(forwardedHost('host="cart.shop";for=x'), "cart.shop");
    assert.equal(forwardedHost('for="10.0.0.1:80"'), undefined);
    assert.equal(forwardedHost(undefined), undefined);
  });
});

describe("newTraceparent()", () => {
  it("is a W3C trace context, new each time", () => {
    assert.match(newTraceparent(), /^00-[0-9a-f]{32}-[0-9a-f]{16}-00$/);
    assert.notEqual(newTraceparent(), newTraceparent());
  });
});

describe("parseAuthority()", () => {
  it("tells addresses from host names", () => {
    assert.deepEqual(parseAuthority("10.0.0.1:80"), {
      kind: "address",
      address: { ip: "10.0.0.1", port: 80 },
    });
    assert.deepEqual(parseAuthority("[fd00::1]:80"), {
      kind: "address",
      address: { ip: "fd00::1", port: 80 },
    });
    assert.deepEqual(parseAuthority("Cart.shop.svc.cluster.local:80"), {
      kind: "hostname",
      hostname: "cart.shop.svc.cluster.local",
      port: 80,
    });
  });

  for (const text of ["", "10.0.0.1", "cart", ":80", "10.0.0.1:0", "10.0.0.1:70000", "1.2.3:80"]) {
    it(`refuses "${text}"`, () => assert.equal(parseAuthority(text), undefined));
  }
  // Nobody may write an address that we read as another one than policy does.
  const strange = ["[fe80::1%eth0]:80", "[10.0.0.1]:80", "10.0.0.01:80", "::ffff:10.0.0.1:80"];
  for (const text of [...strange, "[::1]:80:80", "10.0.0.1:80/", "10.0.0.1 :80", "0:0:80"]) {
    it(`refuses "${text}"`, () => assert.equal(parseAuthority(text), undefined));
  }
  it("reads a mapped address as the IPv4 address that it is", () => {
    const address = { ip: "10.0.0.1", port: 80 };
    assert.deepEqual(parseAuthority("[::ffff:10.0.0.1]:80"), { kind: "address", address });
  });
  for (const text of ["fd00::1:80", "[fd00::1:80", "a b:80", "user@host:80", "http://a:80"]) {
    it(`refuses "${text}"`, () => assert.equal(parseAuthority(text), undefined));
  }
});
