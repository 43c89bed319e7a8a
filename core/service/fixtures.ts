/** Workloads and services for tests: each with sensible values, to be changed where it matters. */
import { parseIp, parseIpBlock } from "../ip.ts";
import type { Service } from "./service.ts";
import { serviceKeyOf, type Workload, type WorkloadUid } from "./workload.ts";

/** A healthy pod in the mesh, in namespace `shop`, with an address of each family. */
export function workloadForTest(name: string, changes: Partial<Workload> = {}): Workload {
  return {
    uid: `Kubernetes//Pod/${changes.namespace ?? "shop"}/${name}` as WorkloadUid,
    name,
    namespace: "shop",
    addresses: [parseIp("10.0.0.1"), parseIp("fd00::1")],
    hostname: "",
    network: "",
    tunnelProtocol: "hbone",
    trustDomain: "cluster.local",
    serviceAccount: name,
    node: "n1",
    clusterId: "Kubernetes",
    canonicalName: name,
    canonicalRevision: "latest",
    workloadType: "pod",
    workloadName: name,
    nativeTunnel: false,
    hostNetwork: false,
    healthy: true,
    policies: [],
    services: new Map(),
    waypoint: undefined,
    networkGateway: undefined,
    applicationTunnel: undefined,
    locality: { region: "", zone: "", subzone: "" },
    sameNode: "encrypted",
    capacity: 1,
    ...changes,
  };
}

/** A service in namespace `shop` at 10.96.0.1 and fd96::1, port 80 to 8080. */
export function serviceForTest(name: string, changes: Partial<Service> = {}): Service {
  const namespace = changes.namespace ?? "shop";
  const hostname = `${name}.${namespace}.svc.cluster.local`;
  return {
    key: serviceKeyOf(namespace, hostname),
    name,
    namespace,
    hostname,
    addresses: ["10.96.0.1", "fd96::1"].map((ip) => ({ network: "", block: parseIpBlock(ip) })),
    ports: [{ port: 80, targetPort: 8080, appProtocol: "unknown" }],
    subjectAltNames: [],
    waypoint: undefined,
    weightedWaypoints: [],
    loadBalancing: undefined,
    ipFamilies: "automatic",
    canonical: true,
    visibility: "public",
    sessionAffinityMs: undefined,
    ...changes,
  };
}
