import type { Brand } from "../brand.ts";
import type { IpAddress } from "../ip.ts";
import { formatSpiffeId, type SpiffeId } from "../spiffe-id.ts";

/** `<cluster>//Pod/<namespace>/<name>` for a pod: unique in the mesh, and its key everywhere. */
export type WorkloadUid = Brand<string, "WorkloadUid">;

/** `<namespace>/<hostname>`: the key of a service. */
export type ServiceKey = Brand<string, "ServiceKey">;

/** `<namespace>/<name>`: the key of a policy. A mesh-wide policy has the root namespace here. */
export type PolicyKey = Brand<string, "PolicyKey">;

/** How bytes reach a workload: in an HBONE tunnel, or as they are. */
export type TunnelProtocol = "none" | "hbone";

/** Where a waypoint or a network gateway is found. */
export type GatewayAddress =
  | { readonly kind: "hostname"; readonly service: ServiceKey; readonly hbonePort: number }
  | {
      readonly kind: "address";
      readonly network: string;
      readonly ip: IpAddress;
      readonly hbonePort: number;
    };

export interface Locality {
  readonly region: string;
  readonly zone: string;
  readonly subzone: string;
}

/** How two workloads of one node talk: as plain TCP that the kernel vouches for, or in a tunnel. */
export type SameNode = "direct" | "encrypted";

/** A workload's port for each port of one service, by the service's port. */
export type PortMap = ReadonlyMap<number, number>;

/** Something with an identity that sends and receives connections, usually a pod. */
export interface Workload {
  readonly uid: WorkloadUid;
  readonly name: string;
  readonly namespace: string;
  readonly addresses: readonly IpAddress[];
  /** Resolved by DNS at connect time, where there are no addresses. "" for none. */
  readonly hostname: string;
  /** "" is the default network. */
  readonly network: string;
  readonly tunnelProtocol: TunnelProtocol;
  readonly trustDomain: string;
  readonly serviceAccount: string;
  /** Name of the node it runs on, "" where it has none. */
  readonly node: string;
  readonly clusterId: string;
  readonly canonicalName: string;
  readonly canonicalRevision: string;
  readonly workloadType: "deployment" | "cronjob" | "pod" | "job";
  /** Of the deployment or the like that it belongs to. */
  readonly workloadName: string;
  /** It ends tunnels itself, as a waypoint does. */
  readonly nativeTunnel: boolean;
  /** On the node's own network: other workloads share its addresses, so none is found by them. */
  readonly hostNetwork: boolean;
  readonly healthy: boolean;
  /** Policies that select this very workload; those of its namespace and the mesh also apply. */
  readonly policies: readonly PolicyKey[];
  readonly services: ReadonlyMap<ServiceKey, PortMap>;
  readonly waypoint: GatewayAddress | undefined;
  readonly networkGateway: GatewayAddress | undefined;
  readonly applicationTunnel: ApplicationTunnel | undefined;
  readonly locality: Locality;
  /** With peers of its own node; a tunnel where one of the two wants it. */
  readonly sameNode: SameNode;
  /** Share of the connections it gets, relative to its peers; 1 unless set. */
  readonly capacity: number;
}

export interface ApplicationTunnel {
  readonly protocol: "none" | "proxy";
  /** 0 where the tunnel's own port is used. */
  readonly port: number;
}

/** The key of a service by its parts. */
export function serviceKeyOf(namespace: string, hostname: string): ServiceKey {
  return `${namespace}/${hostname}` as ServiceKey;
}

/** The key of a policy by its parts. */
export function policyKeyOf(namespace: string, name: string): PolicyKey {
  return `${namespace}/${name}` as PolicyKey;
}

/** @throws MeshError `IDENTITY_INVALID` where a name cannot stand in an identity */
export function identityOf(
  workload: Pick<Workload, "trustDomain" | "namespace" | "serviceAccount">,
): SpiffeId {
  return formatSpiffeId(workload);
}
