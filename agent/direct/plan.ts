/**
 * Which pods of this node may talk to each other without the agent, and what the kernel has to know
 * for it. Whatever is not certain here is left out, and so left to the agent.
 */
import { type IpAddress, isIpv4, type SocketAddress } from "#core/ip.ts";
import { compilePolicies, type WorkloadClass } from "#core/policy/compile.ts";
import { eligibleEndpoints } from "#core/service/endpoint.ts";
import type { MeshIndex } from "#core/service/mesh-index.ts";
import { type Service, virtualIpsOf } from "#core/service/service.ts";
import { identityOf, type PolicyKey, type Workload } from "#core/service/workload.ts";
import { type DirectService, POLICY_ROWS_MAX } from "../kernel/direct-tables.ts";
import type { PolicyRow } from "../kernel/layout.ts";
import type { PodUid } from "../workload/pod.ts";

/** A pod of this node that is up, and what discovery knows of it. */
export interface KnownPod {
  readonly uid: PodUid;
  readonly addresses: readonly IpAddress[];
  readonly workload: Workload;
}

/** A pod that takes part, and the number of its class. */
export interface DirectMember {
  readonly uid: PodUid;
  readonly classId: number;
}

export interface DirectPlan {
  readonly members: readonly DirectMember[];
  readonly rows: readonly PolicyRow[];
  readonly services: readonly DirectService[];
}

/**
 * @param numberOf  gives each class a number, always the same to one that it knows
 */
export function planDirect(
  index: MeshIndex,
  network: string,
  pods: readonly KnownPod[],
  numberOf: (className: string) => number,
): DirectPlan {
  const taking = pods.filter((pod) => takesPart(index, network, pods, pod));
  const classes = new Map<number, WorkloadClass>();
  const members = taking.map(({ uid, workload }): DirectMember => {
    const { name, ...rest } = classOf(index, workload);
    const id = numberOf(name);
    classes.set(id, { id, ...rest });
    return { uid, classId: id };
  });
  const rules = new Map<PolicyKey, number>();
  const ruleOf = (key: PolicyKey) => {
    const rule = rules.get(key) ?? rules.size + 1;
    rules.set(key, rule);
    return rule;
  };
  const { entries } = compilePolicies([...classes.values()], POLICY_ROWS_MAX);
  const rows = entries.map(({ by, ...row }) => ({ ...row, rule: by ? ruleOf(by) : 0 }));
  return { members, rows, services: servicesOf(index, network, taking) };
}

function takesPart(
  index: MeshIndex,
  network: string,
  pods: readonly KnownPod[],
  { addresses, workload }: KnownPod,
): boolean {
  const isWilling =
    workload.sameNode === "direct" &&
    workload.tunnelProtocol === "hbone" &&
    !workload.nativeTunnel &&
    !workload.hostNetwork &&
    workload.network === network;
  if (!isWilling) return false;
  const namespaces = new Set(pods.map((pod) => pod.workload.namespace));
  // An address that means something else to somebody is not the pod's alone.
  return addresses.every(
    (ip) =>
      workload.addresses.includes(ip) &&
      index.workloadAt(network, ip) === workload &&
      [...namespaces].every((name) => index.serviceAt(network, ip, name) === undefined),
  );
}

/** Two pods with the same name of a class cannot be told apart by any policy. */
function classOf(
  index: MeshIndex,
  workload: Workload,
): Omit<WorkloadClass, "id"> & { readonly name: string } {
  const identity = identityOf(workload);
  const { policies, unknown } = index.policiesFor(workload);
  const isForAgent =
    unknown.length > 0 ||
    workload.waypoint !== undefined ||
    workload.applicationTunnel !== undefined;
  if (isForAgent) return { name: `${identity} agent`, identity, policies: undefined };
  const keys = policies.map(({ key }) => key).toSorted();
  return { name: [identity, ...keys].join(" "), identity, policies };
}

function servicesOf(
  index: MeshIndex,
  network: string,
  members: readonly KnownPod[],
): readonly DirectService[] {
  const keys = new Set(members.flatMap(({ workload }) => [...workload.services.keys()]));
  const services = [...keys].map((key) => index.services.get(key));
  return services
    .filter((service) => service !== undefined)
    .filter(isResolvedHere)
    .flatMap((service) =>
      virtualIpsOf(service, network)
        .filter((ip) => isMeantByAll(index, network, members, service, ip))
        .flatMap((ip) => service.ports.map(({ port }) => ({ ip, port })))
        .flatMap((address) => resolve(index, members, service, address) ?? []),
    );
}

/** The rest needs to be remembered from one connection to the next, or is not an endpoint's. */
function isResolvedHere(service: Service): boolean {
  return (
    service.waypoint === undefined &&
    service.weightedWaypoints.length === 0 &&
    service.sessionAffinityMs === undefined &&
    service.loadBalancing?.mode !== "passthrough"
  );
}

function isMeantByAll(
  index: MeshIndex,
  network: string,
  members: readonly KnownPod[],
  service: Service,
  ip: IpAddress,
): boolean {
  const namespaces = new Set(members.map(({ workload }) => workload.namespace));
  return [...namespaces].every((name) => index.serviceAt(network, ip, name) === service);
}

/** Undefined where the agent has to choose, or where no endpoint is of this node. */
function resolve(
  index: MeshIndex,
  members: readonly KnownPod[],
  service: Service,
  address: SocketAddress,
): DirectService | undefined {
  const endpoints = index.endpointsOf(service.key);
  const choices = members.map(({ workload: client }) => {
    const context = { client, servicePort: address.port, dialled: address.ip };
    return eligibleEndpoints(service, endpoints, context);
  });
  const [choice = [], ...others] = choices;
  const uids = (of: typeof choice) => of.map(({ workload }) => workload.uid).join(" ");
  // Who is near depends on who asks; and the kernel draws without weights.
  if (others.some((other) => uids(other) !== uids(choice))) return undefined;
  if (choice.some(({ workload }) => workload.capacity !== choice[0]?.workload.capacity)) {
    return undefined;
  }
  const here = new Set(members.map(({ workload }) => workload.uid));
  const local = choice
    .filter(({ workload }) => here.has(workload.uid))
    .flatMap((endpoint) => endpoint.address ?? [])
    .filter(({ ip }) => isIpv4(ip) === isIpv4(address.ip));
  return local.length === 0 ? undefined : { address, local, total: choice.length };
}
