/** Pods, and endpoints that are no pods, to workloads. */
import type { IpAddress } from "#core/ip.ts";
import type {
  Locality,
  PolicyKey,
  PortMap,
  SameNode,
  ServiceKey,
  Workload,
  WorkloadUid,
} from "#core/service/workload.ts";
import { selects } from "../resources/metadata.ts";
import type {
  EndpointSliceObject,
  Labels,
  NamespaceObject,
  Placed,
  PodObject,
  ServiceObject,
  SliceEndpoint,
} from "../resources/objects.ts";
import type { MeshObjects } from "../resources/register.ts";
import type { Problem } from "../source/problem.ts";
import { formatId } from "../source/source.ts";
import type { Memo } from "./memo.ts";
import { keyOfService } from "./services.ts";
import type { IndexSettings } from "./settings.ts";

const NOWHERE: Locality = { region: "", zone: "", subzone: "" };
const SAME_NODE_ANNOTATION = "aquifer.mesh/same-node";
const NETWORK_LABEL = "topology.istio.io/network";

export interface WorkloadInputs {
  readonly objects: MeshObjects;
  readonly settings: IndexSettings;
  /** Of everything that does not say otherwise. */
  readonly network: string;
  readonly policiesFor: (namespace: string, labels: Labels) => readonly PolicyKey[];
}

export interface BuiltWorkloads {
  readonly workloads: ReadonlyMap<WorkloadUid, Workload>;
  readonly problems: readonly Problem[];
}

/** Every pod that has an address and has not come to its end, and the endpoints of slices. */
export function buildWorkloads(inputs: WorkloadInputs, memo: Memo<Workload>): BuiltWorkloads {
  const workloads = new Map<WorkloadUid, Workload>();
  const problems: Problem[] = [];
  const addresses = new Map<IpAddress, Placed<PodObject>>();
  const memberships = new Memberships(inputs.objects);
  for (const placed of inputs.objects.Pod.values()) {
    const pod = placed.object;
    if (pod.isTerminal || pod.addresses.length === 0) continue;
    const workload = podWorkload(pod, memberships.of(pod), inputs, memo);
    if (isUnknownSameNode(pod.annotations.get(SAME_NODE_ANNOTATION))) {
      problems.push(sameNodeProblem(placed));
    }
    workloads.set(workload.uid, workload);
    if (pod.hostNetwork) continue;
    for (const address of pod.addresses) {
      const other = addresses.get(address);
      if (other) problems.push(rivalProblem(placed, address, other));
      else addresses.set(address, placed);
    }
  }
  for (const namespace of inputs.objects.Namespace.values()) {
    const text = namespace.object.annotations.get(SAME_NODE_ANNOTATION);
    if (isUnknownSameNode(text)) problems.push(sameNodeProblem(namespace));
  }
  for (const { object: slice } of inputs.objects.EndpointSlice.values()) {
    const service = inputs.objects.Service.get(`${slice.namespace}/${slice.service}`)?.object;
    if (!service || service.type === "externalName") continue;
    for (const endpoint of slice.endpoints) {
      const [address] = endpoint.addresses;
      // A pod is known already, and better.
      if (address === undefined || endpoint.pod !== undefined || addresses.has(address)) continue;
      const workload = endpointWorkload({ slice, endpoint, address, service }, inputs, memo);
      workloads.set(workload.uid, workload);
    }
  }
  return { workloads, problems };
}

/** The pod's word, else its namespace's, else the mesh's. One that is not known is no consent. */
function sameNodeOf(pod: PodObject, { objects, settings }: WorkloadInputs): SameNode {
  const ofNamespace = objects.Namespace.get(`/${pod.namespace}`)?.object.annotations;
  const text =
    pod.annotations.get(SAME_NODE_ANNOTATION) ??
    ofNamespace?.get(SAME_NODE_ANNOTATION) ??
    settings.sameNode;
  return text === "direct" ? "direct" : "encrypted";
}

function isUnknownSameNode(text: string | undefined): boolean {
  return text !== undefined && text !== "direct" && text !== "encrypted";
}

function sameNodeProblem(placed: Placed<PodObject | NamespaceObject>): Problem {
  const path = ["metadata", "annotations", SAME_NODE_ANNOTATION];
  const { object, origin } = placed;
  const text = object.annotations.get(SAME_NODE_ANNOTATION);
  return {
    origin: { file: origin.file, line: placed.lineOf(path) },
    object: formatId({ group: "", ...object }),
    field: `metadata.annotations["${SAME_NODE_ANNOTATION}"]`,
    reason: `expected "direct" or "encrypted", found "${text}"; taken for "encrypted"`,
    effect: "partly",
  };
}

function rivalProblem(
  placed: Placed<PodObject>,
  address: IpAddress,
  other: Placed<PodObject>,
): Problem {
  const place = `${other.origin.file}:${other.origin.line}`;
  const who = `${formatId({ group: "", ...other.object })} (${place})`;
  return {
    origin: { file: placed.origin.file, line: placed.lineOf(["status", "podIP"]) },
    object: formatId({ group: "", ...placed.object }),
    field: "status.podIP",
    reason: `address ${address} belongs to ${who} as well; it is not certain who answers there`,
    effect: "partly",
  };
}

/** A service that a pod belongs to, and the slice that says so where no selector does. */
interface Membership {
  readonly service: ServiceObject;
  readonly slice: EndpointSliceObject | undefined;
}

/** Finds the services of pods. */
class Memberships {
  readonly #selecting = new Map<string, ServiceObject[]>();
  readonly #bySlice = new Map<string, Membership[]>();

  constructor(objects: MeshObjects) {
    for (const { object: service } of objects.Service.values()) {
      if (service.type === "externalName" || service.selector.size === 0) continue;
      append(this.#selecting, service.namespace, service);
    }
    for (const { object: slice } of objects.EndpointSlice.values()) {
      const service = objects.Service.get(`${slice.namespace}/${slice.service}`)?.object;
      if (!service || service.type === "externalName" || service.selector.size > 0) continue;
      for (const { pod } of slice.endpoints) {
        if (pod !== undefined)
          append(this.#bySlice, `${slice.namespace}/${pod}`, { service, slice });
      }
    }
  }

  of(pod: PodObject): readonly Membership[] {
    const selecting = this.#selecting.get(pod.namespace) ?? [];
    const bySelector = selecting
      .filter(({ selector }) => selects(selector, pod.labels))
      .map((service): Membership => ({ service, slice: undefined }));
    return [...bySelector, ...(this.#bySlice.get(`${pod.namespace}/${pod.name}`) ?? [])];
  }
}

function append<Item>(map: Map<string, Item[]>, key: string, item: Item): void {
  const items = map.get(key);
  if (items) items.push(item);
  else map.set(key, [item]);
}

function podWorkload(
  pod: PodObject,
  memberships: readonly Membership[],
  inputs: WorkloadInputs,
  memo: Memo<Workload>,
): Workload {
  const { clusterId } = inputs.settings;
  const uid = `${clusterId}//Pod/${pod.namespace}/${pod.name}` as WorkloadUid;
  const policies = inputs.policiesFor(pod.namespace, pod.labels);
  const sameNode = sameNodeOf(pod, inputs);
  const locality = inputs.objects.Node.get(`/${pod.node}`)?.object.locality ?? NOWHERE;
  const dependencies = [
    pod,
    sameNode,
    locality,
    inputs.network,
    policies.join(),
    ...memberships.flatMap(({ service, slice }) => [service, slice]),
  ];
  return memo.get(uid, dependencies, () => ({
    ...workloadBase(inputs),
    uid,
    name: pod.name,
    namespace: pod.namespace,
    addresses: pod.addresses,
    network: pod.labels.get(NETWORK_LABEL) ?? inputs.network,
    ...tunnelOf(pod),
    serviceAccount: pod.serviceAccount,
    node: pod.node,
    ...canonicalOf(pod),
    workloadName: pod.workloadName,
    workloadType: "pod",
    hostNetwork: pod.hostNetwork,
    healthy: pod.isReady,
    policies,
    services: servicesOf(pod, memberships),
    locality,
    sameNode,
  }));
}

interface EndpointInputs {
  readonly slice: EndpointSliceObject;
  readonly endpoint: SliceEndpoint;
  readonly address: IpAddress;
  readonly service: ServiceObject;
}

/** Something that is no pod, such as a database outside: it is reached in plaintext, by service. */
function endpointWorkload(
  { slice, endpoint, address, service }: EndpointInputs,
  inputs: WorkloadInputs,
  memo: Memo<Workload>,
): Workload {
  const place = `${slice.namespace}/${slice.name}/${address}`;
  const uid = `${inputs.settings.clusterId}/discovery.k8s.io/EndpointSlice/${place}` as WorkloadUid;
  return memo.get(uid, [slice, endpoint, service, inputs.network], () => ({
    ...workloadBase(inputs),
    uid,
    name: slice.name,
    namespace: slice.namespace,
    addresses: [address],
    network: inputs.network,
    tunnelProtocol: "none",
    nativeTunnel: false,
    serviceAccount: "default",
    node: endpoint.node,
    canonicalName: "",
    canonicalRevision: "",
    workloadName: "",
    workloadType: "deployment",
    // Nobody looks a workload up by this address: what is behind it is not known.
    hostNetwork: true,
    healthy: endpoint.isReady,
    policies: [],
    services: new Map([[keyOfService(service), slicePorts(slice, service)]]),
    locality: endpoint.zone === "" ? NOWHERE : { ...NOWHERE, zone: endpoint.zone },
  }));
}

function workloadBase({ settings }: WorkloadInputs) {
  return {
    hostname: "",
    sameNode: "encrypted",
    trustDomain: settings.trustDomain,
    clusterId: settings.clusterId,
    waypoint: undefined,
    networkGateway: undefined,
    applicationTunnel: undefined,
    capacity: 1,
  } as const;
}

/** @see https://istio.io/latest/docs/reference/config/annotations/#AmbientRedirection */
function tunnelOf(pod: PodObject): Pick<Workload, "tunnelProtocol" | "nativeTunnel"> {
  const nativeTunnel = pod.labels.get("networking.istio.io/tunnel") === "http";
  const isCaptured = pod.annotations.get("ambient.istio.io/redirection") === "enabled";
  return { nativeTunnel, tunnelProtocol: isCaptured || nativeTunnel ? "hbone" : "none" };
}

/** @see https://istio.io/latest/docs/ops/configuration/telemetry/ for the labels and their order */
function canonicalOf(pod: PodObject): Pick<Workload, "canonicalName" | "canonicalRevision"> {
  const first = (...names: string[]) => names.map((name) => pod.labels.get(name)).find(Boolean);
  return {
    canonicalName:
      first("service.istio.io/canonical-name", "app.kubernetes.io/name", "app") ?? pod.workloadName,
    canonicalRevision:
      first("service.istio.io/canonical-revision", "app.kubernetes.io/version", "version") ??
      "latest",
  };
}

function servicesOf(
  pod: PodObject,
  memberships: readonly Membership[],
): ReadonlyMap<ServiceKey, PortMap> {
  const services = new Map<ServiceKey, PortMap>();
  for (const { service, slice } of memberships) {
    const ports = slice ? slicePorts(slice, service) : podPorts(pod, service);
    const key = keyOfService(service);
    // A service may have several slices, and a pod stand in more than one.
    services.set(key, new Map([...(services.get(key) ?? []), ...ports]));
  }
  return services;
}

/** A name that no container has is left out: the pod does not offer that port. */
function podPorts(pod: PodObject, service: ServiceObject): PortMap {
  const ports = new Map<number, number>();
  for (const { port, target } of service.ports) {
    const number = target.kind === "number" ? target.port : pod.namedPorts.get(target.name);
    if (number !== undefined) ports.set(port, number);
  }
  return ports;
}

function slicePorts(slice: EndpointSliceObject, service: ServiceObject): PortMap {
  const ports = new Map<number, number>();
  for (const { name, port } of service.ports) {
    const number = slice.ports.get(name);
    if (number !== undefined) ports.set(port, number);
  }
  return ports;
}

/** The network of everything that does not name one. */
export function networkOf(objects: MeshObjects, settings: IndexSettings): string {
  const root = objects.Namespace.get(`/${settings.rootNamespace}`)?.object;
  return settings.network ?? root?.labels.get(NETWORK_LABEL) ?? "";
}

/** Where the identities of `pods` run. A pod that has come to its end runs nowhere. */
export function placementOf(
  pods: Iterable<Placed<PodObject>>,
): ReadonlyMap<string, readonly { namespace: string; serviceAccount: string }[]> {
  const byNode = new Map<string, Map<string, { namespace: string; serviceAccount: string }>>();
  for (const { object: pod } of pods) {
    if (pod.isTerminal || pod.node === "") continue;
    const { namespace, serviceAccount } = pod;
    const identities = byNode.get(pod.node) ?? new Map();
    byNode.set(
      pod.node,
      identities.set(`${namespace}/${serviceAccount}`, { namespace, serviceAccount }),
    );
  }
  return new Map([...byNode].map(([node, identities]) => [node, [...identities.values()]]));
}
