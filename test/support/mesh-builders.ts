/** Small builders of mesh objects: a test says what matters to it, the rest is ordinary. */
import { parseIp, parseIpBlock } from "#core/ip.ts";
import type { Policy } from "#core/policy/policy.ts";
import type { Service } from "#core/service/service.ts";
import {
  policyKeyOf,
  serviceKeyOf,
  type Workload,
  type WorkloadUid,
} from "#core/service/workload.ts";

/** A pod named `name` of namespace `namespace`, in the mesh and healthy. */
export function workload(changes: Partial<Workload> = {}): Workload {
  const name = changes.name ?? "pod";
  const namespace = changes.namespace ?? "default";
  return {
    uid: `Kubernetes//Pod/${namespace}/${name}` as WorkloadUid,
    name,
    namespace,
    addresses: [],
    hostname: "",
    network: "",
    tunnelProtocol: "hbone",
    trustDomain: "cluster.local",
    serviceAccount: name,
    node: "n1",
    clusterId: "Kubernetes",
    canonicalName: name,
    canonicalRevision: "",
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

/** A service with one VIP, whose endpoints are workloads that name its key. */
export function service(name: string, vip: string, changes: Partial<Service> = {}): Service {
  const namespace = changes.namespace ?? "default";
  const hostname = `${name}.${namespace}.svc.cluster.local`;
  return {
    key: serviceKeyOf(namespace, hostname),
    name,
    namespace,
    hostname,
    addresses: [{ network: "", block: parseIpBlock(vip) }],
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

/** A policy of the whole mesh that denies nothing, until it is told more. */
export function policy(name: string, changes: Partial<Policy> = {}): Policy {
  const namespace = changes.namespace ?? "default";
  return {
    key: policyKeyOf(namespace, name),
    name,
    namespace,
    scope: "namespace",
    action: "deny",
    dryRun: false,
    rules: [],
    ...changes,
  };
}

export { parseIp };
