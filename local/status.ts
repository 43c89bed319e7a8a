/** The runtime as others see it. */

import { formatSocketAddress } from "#core/ip.ts";
import type {
  DeploymentStatus,
  LocalStatus,
  NodeStatus,
  PodStatus,
  ServiceStatus,
} from "#core/local-api.ts";
import { DNS_ADDRESS, nodeAddress } from "./addresses.ts";
import { FABRIC } from "./names.ts";
import { nameOf } from "./object/object.ts";
import { backendsOf, type PodView } from "./plan/endpoints.ts";
import type { PodLoop } from "./pod/pod-loop.ts";
import type { Runtime } from "./runtime.ts";

export function statusOf(runtime: Runtime, settled: boolean): LocalStatus {
  const { config, names, cluster } = runtime;
  return {
    name: config.name,
    pid: process.pid,
    settled,
    mesh: config.mesh,
    stateDir: names.stateDir,
    fabric: { netns: names.netns(FABRIC) },
    control: cluster.controlStatus,
    nodes: cluster.nodes.map(({ name, number, netns }): NodeStatus => {
      return {
        name,
        netns,
        cgroup: names.placeCgroup(name),
        addresses: Object.values(nodeAddress(number)),
        agent: cluster.agentStatus(name),
      };
    }),
    deployments: deploymentsOf(runtime),
    pods: runtime.pods.map((pod) => podStatus(pod, runtime)).toSorted(byName),
    services: servicesOf(runtime),
    problems: runtime.problems,
  };
}

function deploymentsOf({ objects, pods, resolved }: Runtime): readonly DeploymentStatus[] {
  const wanted = new Map(resolved.deployments.map((each) => [each.name, each.templateHash]));
  const statuses = [...objects.values()].flatMap(({ object }): DeploymentStatus[] => {
    if (object.kind !== "Deployment") return [];
    const key = nameOf(object);
    const own = pods.filter((pod) => pod.options.pod.owner?.deployment === key);
    const current = own.filter((pod) => pod.options.pod.owner?.templateHash === wanted.get(key));
    const { namespace, name } = object.metadata;
    return [
      {
        namespace,
        name,
        replicas: object.replicas,
        ready: own.filter(({ ready }) => ready).length,
        current: current.length,
      },
    ];
  });
  return statuses.toSorted(byName);
}

function podStatus(pod: PodLoop, { names }: Runtime): PodStatus {
  const { uid, addresses } = pod.options;
  const { namespace, name, node, spec } = pod.options.pod;
  const reason = "reason" in pod.mesh ? pod.mesh.reason : "";
  return {
    namespace,
    name,
    uid,
    node,
    serviceAccount: spec.serviceAccount,
    phase: pod.phase,
    ready: pod.ready,
    terminating: pod.terminating,
    addresses: [addresses.ipv4, addresses.ipv6],
    netns: pod.netns,
    cgroup: pod.cgroup,
    mesh: pod.mesh.phase,
    labels: pod.labels,
    createdAt: pod.createdAt.toISOString(),
    containers: pod.containers.map(({ name: container, state, pid }) => ({
      name: container,
      phase: state.phase,
      ready: state.phase === "running" && state.ready,
      restarts: state.restarts,
      pid: pid ?? null,
      exitCode: state.lastExit?.code ?? null,
      log: names.containerLog(pod.options.pod, container),
    })),
    message: reason === "" ? (pod.message ?? "") : reason,
  };
}

function servicesOf({ resolved, addresses, pods }: Runtime): readonly ServiceStatus[] {
  const views = pods.flatMap(({ view }): readonly PodView[] => (view === undefined ? [] : [view]));
  const statuses = resolved.services.map((service): ServiceStatus => {
    const { namespace, name } = service.metadata;
    const own = addresses.get(nameOf(service)) ?? [];
    // Endpoints are the same behind each address; that of a headless service is not dialled.
    const backends = backendsOf(service, [own[0] ?? DNS_ADDRESS.ipv4], views);
    return {
      namespace,
      name,
      addresses: own,
      ports: service.ports.map((port) => ({
        name: port.name ?? "",
        port: port.port,
        protocol: port.protocol,
        endpoints: backends
          .filter((each) => each.port === port.port && each.protocol === port.protocol)
          .flatMap(({ targets }) => targets.map(formatSocketAddress)),
      })),
    };
  });
  return statuses.toSorted(byName);
}

interface Named {
  readonly namespace: string;
  readonly name: string;
}

function byName(a: Named, b: Named): number {
  const [left, right] = [`${a.namespace}/${a.name}`, `${b.namespace}/${b.name}`];
  return left < right ? -1 : Number(left > right);
}
