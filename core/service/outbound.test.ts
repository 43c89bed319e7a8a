import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { parseIp, parseSocketAddress } from "../ip.ts";
import { parseSpiffeId } from "../spiffe-id.ts";
import { serviceForTest, workloadForTest } from "./fixtures.ts";
import { MeshIndex } from "./mesh-index.ts";
import {
  type OutboundRoute,
  resolveTunnelDestination,
  routeOutbound,
  type TunnelDestination,
} from "./outbound.ts";
import type { Service } from "./service.ts";
import type { Workload } from "./workload.ts";

const client = workloadForTest("client", { addresses: [parseIp("10.0.1.1"), parseIp("fd01::1")] });
const shop = serviceForTest("web");
const member = (service: Service): Workload["services"] => new Map([[service.key, new Map()]]);
const web = workloadForTest("web", { services: member(shop) });
const waypointService = serviceForTest("waypoint", {
  addresses: [],
  ports: [{ port: 15_008, targetPort: 15_008, appProtocol: "unknown" }],
});
const waypoint = workloadForTest("waypoint", {
  addresses: [parseIp("10.0.2.2")],
  services: member(waypointService),
});
const throughWaypoint = {
  kind: "hostname",
  service: waypointService.key,
  hbonePort: 15_008,
} as const;

function indexOf(workloads: readonly Workload[], services: readonly Service[] = []): MeshIndex {
  const index = new MeshIndex();
  index.apply({
    workloads: { changed: workloads, removed: [] },
    services: { changed: services, removed: [] },
  });
  return index;
}

function route(index: MeshIndex, destination: string, from = client, tried: Workload[] = []) {
  return routeOutbound(index, {
    client: from,
    destination: parseSocketAddress(destination),
    tried: new Set(tried.map(({ uid }) => uid)),
    outstanding: () => 0,
    random: () => 0,
  });
}

function tunnelOf(answer: OutboundRoute) {
  assert.ok(answer.kind === "tunnel", `expected a tunnel, got ${JSON.stringify(answer)}`);
  const { address, authority, identities, through } = answer;
  return { to: `${address.ip} ${address.port}`, authority, identities, through };
}

const WEB_ID = parseSpiffeId("spiffe://cluster.local/ns/shop/sa/web");
const WAYPOINT_ID = parseSpiffeId("spiffe://cluster.local/ns/shop/sa/waypoint");

describe("routeOutbound()", () => {
  it("passes what it does not know through", () => {
    assert.equal(route(indexOf([]), "93.184.216.34:443").kind, "passthrough");
  });

  it("refuses the agent's own ports on loopback", () => {
    const answer = route(indexOf([]), "127.0.0.1:15006");
    assert.deepEqual(answer, { kind: "refused", because: "proxyPort", service: undefined });
  });

  it("tunnels a service's address to an endpoint, at the endpoint's port", () => {
    assert.deepEqual(tunnelOf(route(indexOf([web], [shop]), "10.96.0.1:80")), {
      to: "10.0.0.1 15008",
      authority: "10.0.0.1:8080",
      identities: [WEB_ID],
      through: "workload",
    });
  });

  it("keeps to the family that was dialled", () => {
    const answer = tunnelOf(route(indexOf([web], [shop]), "[fd96::1]:80"));
    assert.equal(answer.authority, "[fd00::1]:8080");
  });

  it("accepts the service's identities besides the endpoint's own", () => {
    const other = "spiffe://cluster.local/ns/shop/sa/other";
    const service = { ...shop, subjectAltNames: [other, "dns-name"] };
    const answer = tunnelOf(route(indexOf([web], [service]), "10.96.0.1:80"));
    assert.deepEqual(answer.identities, [other, WEB_ID]);
  });

  it("prefers the port that the endpoint gives for the service's port", () => {
    const services = new Map([[shop.key, new Map([[80, 9090]])]]);
    const answer = tunnelOf(route(indexOf([{ ...web, services }], [shop]), "10.96.0.1:80"));
    assert.equal(answer.authority, "10.0.0.1:9090");
  });

  it("reaches an endpoint outside the mesh in plain TCP", () => {
    const answer = route(indexOf([{ ...web, tunnelProtocol: "none" }], [shop]), "10.96.0.1:80");
    assert.ok(answer.kind === "tcp");
    assert.deepEqual(answer.address, { ip: "10.0.0.1", port: 8080 });
  });

  it("refuses a service without an endpoint, and never passes it through", () => {
    for (const endpoints of [[], [{ ...web, healthy: false }]]) {
      const answer = route(indexOf(endpoints, [shop]), "10.96.0.1:80");
      assert.equal(answer.kind === "refused" && answer.because, "noEndpoint");
    }
  });

  it("uses an unhealthy endpoint where the service says so", () => {
    const loadBalancing = {
      routingPreference: [],
      mode: "unspecified",
      healthPolicy: "allowAll",
    } as const;
    const index = indexOf([{ ...web, healthy: false }], [{ ...shop, loadBalancing }]);
    assert.equal(route(index, "10.96.0.1:80").kind, "tunnel");
  });

  it("refuses a port that the service does not have", () => {
    const answer = route(indexOf([web], [shop]), "10.96.0.1:81");
    assert.equal(answer.kind === "refused" && answer.because, "noSuchPort");
  });

  it("does not try an endpoint twice", () => {
    const answer = route(indexOf([web], [shop]), "10.96.0.1:80", client, [web]);
    assert.equal(answer.kind === "refused" && answer.because, "noEndpoint");
  });

  it("tunnels a pod's address to the pod, at the port dialled", () => {
    const answer = tunnelOf(route(indexOf([web], [shop]), "10.0.0.1:5432"));
    assert.equal(answer.authority, "10.0.0.1:5432");
  });

  it("does not find a pod on its node's network by address", () => {
    const index = indexOf([{ ...web, hostNetwork: true }]);
    assert.equal(route(index, "10.0.0.1:80").kind, "passthrough");
  });

  it("sends a service with a waypoint there, with the address that was dialled", () => {
    const service = { ...shop, waypoint: throughWaypoint };
    const index = indexOf([web, waypoint], [service, waypointService]);
    assert.deepEqual(tunnelOf(route(index, "10.96.0.1:80")), {
      to: "10.0.2.2 15008",
      authority: "10.96.0.1:80",
      identities: [WAYPOINT_ID],
      through: "waypoint",
    });
  });

  it("never goes around a waypoint that is missing", () => {
    const index = indexOf([web], [{ ...shop, waypoint: throughWaypoint }]);
    const answer = route(index, "10.96.0.1:80");
    assert.equal(answer.kind === "refused" && answer.because, "unknownWaypoint");
  });

  it("sends a pod's address through the pod's waypoint, but not from the waypoint itself", () => {
    const pod = { ...web, waypoint: throughWaypoint };
    const index = indexOf([pod, waypoint], [waypointService]);
    assert.equal(tunnelOf(route(index, "10.0.0.1:80")).through, "waypoint");
    assert.equal(tunnelOf(route(index, "10.0.0.1:80", waypoint)).through, "workload");
  });

  it("passes a service with PASSTHROUGH through", () => {
    const loadBalancing = {
      routingPreference: [],
      mode: "passthrough",
      healthPolicy: "onlyHealthy",
    } as const;
    const answer = route(indexOf([web], [{ ...shop, loadBalancing }]), "10.96.0.1:80");
    assert.ok(answer.kind === "passthrough");
    assert.equal(answer.service?.name, "web");
  });

  it("refuses an endpoint on another network", () => {
    const index = indexOf([{ ...web, network: "west" }], [shop]);
    const answer = route(index, "10.96.0.1:80");
    assert.equal(answer.kind === "refused" && answer.because, "otherNetwork");
  });

  it("takes a service of the client's namespace before one of another", () => {
    const foreign = serviceForTest("web", { namespace: "bank" });
    const teller = workloadForTest("teller", {
      namespace: "bank",
      addresses: [parseIp("10.0.3.3")],
      services: member(foreign),
    });
    const index = indexOf([teller, web], [foreign, shop]);
    assert.equal(tunnelOf(route(index, "10.96.0.1:80")).authority, "10.0.0.1:8080");
  });
});

describe("resolveTunnelDestination()", () => {
  const localIp = parseIp("10.0.0.1");
  const address = (text: string) =>
    ({ kind: "address", address: parseSocketAddress(text) }) as const;
  const hostname = (name: string, port: number) =>
    ({ kind: "hostname", hostname: name, port }) as const;
  const portOf = (answer: TunnelDestination) =>
    answer.kind === "dial" ? answer.port : answer.status;

  it("dials the pod's own address at the port asked for", () => {
    const index = indexOf([web], [shop]);
    assert.equal(portOf(resolveTunnelDestination(index, web, localIp, address("10.0.0.1:99"))), 99);
  });

  it("refuses another pod's address with 400", () => {
    const index = indexOf([web, client], [shop]);
    const answer = resolveTunnelDestination(index, web, localIp, address("10.0.1.1:80"));
    assert.equal(portOf(answer), 400);
  });

  it("accepts an address whose waypoint the workload is", () => {
    const service = { ...shop, waypoint: throughWaypoint };
    const index = indexOf([web, waypoint], [service, waypointService]);
    const at = parseIp("10.0.2.2");
    const answer = resolveTunnelDestination(index, waypoint, at, address("10.96.0.1:80"));
    assert.equal(portOf(answer), 80);
  });

  it("finds the port of a service by its name, and refuses unknown ones with 503", () => {
    const index = indexOf([web], [shop]);
    const ask = (name: string, port: number) =>
      portOf(resolveTunnelDestination(index, web, localIp, hostname(name, port)));
    assert.equal(ask(shop.hostname, 80), 8080);
    assert.equal(ask(shop.hostname, 81), 503);
    assert.equal(ask("other.shop.svc.cluster.local", 80), 503);
  });

  it("refuses the mesh's own ports with 503", () => {
    const index = indexOf([web]);
    for (const port of [15_001, 15_006, 15_008]) {
      const answer = resolveTunnelDestination(index, web, localIp, address(`10.0.0.1:${port}`));
      assert.equal(portOf(answer), 503);
    }
  });
});
