import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { parseIp } from "#core/ip.ts";
import { podAddress } from "../addresses.ts";
import type { ContainerPort, ServiceObject } from "../object/object.ts";
import { backendsOf, type PodView, slicesOf } from "./endpoints.ts";

const VIP = [parseIp("10.96.0.11"), parseIp("fd96::b")];

function service(change: Partial<ServiceObject> = {}): ServiceObject {
  return {
    kind: "Service",
    metadata: { namespace: "shop", name: "web", labels: {}, annotations: {} },
    selector: { app: "web" },
    ports: [
      { name: "http", port: 80, targetPort: "http", protocol: "TCP", appProtocol: undefined },
    ],
    addressing: { kind: "virtual", requested: [] },
    families: ["IPv4", "IPv6"],
    publishNotReady: false,
    affinity: false,
    raw: {},
    ...change,
  };
}

function pod(number: number, change: Partial<PodView> & { httpPort?: number } = {}): PodView {
  const { httpPort = 8080, ...rest } = change;
  const http: ContainerPort = { name: "http", port: httpPort, protocol: "TCP" };
  return {
    uid: `uid-${number}`,
    namespace: "shop",
    name: `web-${number}`,
    node: "n1",
    hostname: undefined,
    labels: { app: "web", more: "yes" },
    addresses: podAddress(1, number),
    ports: [http],
    ready: true,
    terminating: false,
    ...rest,
  };
}

describe("backendsOf()", () => {
  it("has every port of every address, with the pods that can serve", () => {
    const pods = [
      pod(2),
      pod(3, { ready: false }),
      pod(4, { terminating: true }),
      pod(5, { namespace: "elsewhere" }),
      pod(6, { labels: { app: "other" } }),
      pod(7, { httpPort: 9090 }),
    ];
    const backends = backendsOf(service(), VIP, pods);
    assert.deepEqual(
      backends.map(({ address, port, targets }) => ({ address, port, targets })),
      [
        {
          address: "10.96.0.11",
          port: 80,
          targets: [
            { ip: "10.244.1.2", port: 8080 },
            { ip: "10.244.1.7", port: 9090 },
          ],
        },
        {
          address: "fd96::b",
          port: 80,
          targets: [
            { ip: "fd44:1::2", port: 8080 },
            { ip: "fd44:1::7", port: 9090 },
          ],
        },
      ],
    );
  });

  it("sends to pods that are not ready where the service says so", () => {
    const [backend] = backendsOf(service({ publishNotReady: true }), VIP, [
      pod(2, { ready: false }),
    ]);
    assert.equal(backend?.targets.length, 1);
  });

  it("has nobody behind a service without a selector", () => {
    const [backend] = backendsOf(service({ selector: undefined }), VIP, [pod(2)]);
    assert.deepEqual(backend?.targets, []);
  });
});

describe("slicesOf()", () => {
  it("makes a slice for each family and each set of ports", () => {
    const slices = slicesOf(service(), [pod(2), pod(3, { httpPort: 9090 })]);
    assert.deepEqual(
      slices.map(({ metadata, ports }) => [metadata.name, JSON.stringify(ports)]),
      [
        ["web-ipv4-0", '[{"name":"http","port":8080,"protocol":"TCP"}]'],
        ["web-ipv4-1", '[{"name":"http","port":9090,"protocol":"TCP"}]'],
        ["web-ipv6-0", '[{"name":"http","port":8080,"protocol":"TCP"}]'],
        ["web-ipv6-1", '[{"name":"http","port":9090,"protocol":"TCP"}]'],
      ],
    );
  });

  it("tells the condition of each pod", () => {
    const [slice] = slicesOf(service(), [pod(2, { ready: false })]);
    assert.deepEqual(slice?.["endpoints"], [
      {
        addresses: ["10.244.1.2"],
        conditions: { ready: false, serving: false, terminating: false },
        nodeName: "n1",
        targetRef: { kind: "Pod", namespace: "shop", name: "web-2", uid: "uid-2" },
      },
    ]);
  });
});
