/** Which pods stand behind which service, and in which forms that is told to others. */
import { type IpAddress, isIpv4, type SocketAddress } from "#core/ip.ts";
import type { DualAddress } from "../addresses.ts";
import type {
  ContainerPort,
  IpFamily,
  ServiceObject,
  ServicePort,
  TransportProtocol,
} from "../object/object.ts";

/** A pod that has its addresses, as services see it. */
export interface PodView {
  readonly uid: string;
  readonly namespace: string;
  readonly name: string;
  readonly node: string;
  readonly hostname: string | undefined;
  readonly labels: Readonly<Record<string, string>>;
  readonly addresses: DualAddress;
  readonly ports: readonly ContainerPort[];
  readonly ready: boolean;
  readonly terminating: boolean;
}

/** The selected pods, in the order given. A service without a selector selects none. */
export function podsOf(service: ServiceObject, pods: readonly PodView[]): readonly PodView[] {
  const { selector, metadata } = service;
  if (selector === undefined) return [];
  const wanted = Object.entries(selector);
  return pods.filter((pod) => {
    return (
      pod.namespace === metadata.namespace &&
      wanted.every(([key, value]) => pod.labels[key] === value)
    );
  });
}

/** Whether new connections may be sent to the pod. */
export function isUsable(service: ServiceObject, pod: PodView): boolean {
  return service.publishNotReady || (pod.ready && !pod.terminating);
}

/** One port of one virtual address, and where connections to it go. */
export interface Backend {
  readonly service: string;
  readonly address: IpAddress;
  readonly port: number;
  readonly protocol: TransportProtocol;
  readonly affinity: boolean;
  readonly targets: readonly SocketAddress[];
}

export function backendsOf(
  service: ServiceObject,
  addresses: readonly IpAddress[],
  pods: readonly PodView[],
): readonly Backend[] {
  const usable = podsOf(service, pods).filter((pod) => isUsable(service, pod));
  return addresses.flatMap((address) => {
    return service.ports.map((port): Backend => {
      return {
        service: `${service.metadata.namespace}/${service.metadata.name}`,
        address,
        port: port.port,
        protocol: port.protocol,
        affinity: service.affinity,
        targets: usable.flatMap((pod) => targetOf(port, pod, isIpv4(address))),
      };
    });
  });
}

function targetOf(port: ServicePort, pod: PodView, ipv4: boolean): readonly SocketAddress[] {
  const number = targetPortOf(port, pod);
  if (number === undefined) return [];
  return [{ ip: ipv4 ? pod.addresses.ipv4 : pod.addresses.ipv6, port: number }];
}

/** undefined where the pod has no port of that name: it is no endpoint of that port then. */
function targetPortOf(port: ServicePort, pod: PodView): number | undefined {
  const { targetPort, protocol } = port;
  if (typeof targetPort === "number") return targetPort;
  return pod.ports.find((each) => each.name === targetPort && each.protocol === protocol)?.port;
}

/** A Kubernetes object, ready to be written as YAML. */
export interface Manifest {
  readonly kind: string;
  readonly metadata: {
    readonly namespace?: string;
    readonly name: string;
    readonly [field: string]: unknown;
  };
  readonly [field: string]: unknown;
}

/**
 * EndpointSlices of a service: one for each family and each set of port numbers, since a named
 * port may be another number in each pod.
 *
 * @see https://kubernetes.io/docs/concepts/services-networking/endpoint-slices/
 */
export function slicesOf(service: ServiceObject, pods: readonly PodView[]): readonly Manifest[] {
  if (service.selector === undefined || service.addressing.kind === "external") return [];
  const groups = Map.groupBy(podsOf(service, pods), (pod) => {
    return JSON.stringify(service.ports.map((port) => targetPortOf(port, pod) ?? null));
  });
  return service.families.flatMap((family) => {
    return [...groups.values()].map((group, index) => sliceOf(service, family, group, index));
  });
}

function sliceOf(
  service: ServiceObject,
  family: IpFamily,
  pods: readonly PodView[],
  index: number,
): Manifest {
  const { namespace, name } = service.metadata;
  const [first] = pods;
  const ports = service.ports.flatMap((port) => {
    const number = first === undefined ? undefined : targetPortOf(port, first);
    if (number === undefined) return [];
    const { protocol, appProtocol } = port;
    return [{ name: port.name ?? "", port: number, protocol, appProtocol }];
  });
  return {
    apiVersion: "discovery.k8s.io/v1",
    kind: "EndpointSlice",
    metadata: {
      namespace,
      name: `${name}-${family.toLowerCase()}-${index}`,
      labels: {
        "kubernetes.io/service-name": name,
        "endpointslice.kubernetes.io/managed-by": "aquifer-local",
      },
    },
    addressType: family,
    ports,
    endpoints: pods.map((pod) => {
      return {
        addresses: [family === "IPv4" ? pod.addresses.ipv4 : pod.addresses.ipv6],
        conditions: {
          ready: isUsable(service, pod),
          serving: pod.ready,
          terminating: pod.terminating,
        },
        nodeName: pod.node,
        targetRef: { kind: "Pod", namespace, name: pod.name, uid: pod.uid },
      };
    }),
  };
}
