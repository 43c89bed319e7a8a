/** The objects as the index sees them: only what the mesh needs, in the mesh's own types. */
import type { IpAddress } from "#core/ip.ts";
import type { Policy } from "#core/policy/policy.ts";
import type { AppProtocol, LoadBalancing, Service } from "#core/service/service.ts";
import type { Locality } from "#core/service/workload.ts";
import type { FieldPath, Origin } from "../source/source.ts";

export type Labels = ReadonlyMap<string, string>;

export interface Metadata {
  readonly name: string;
  /** "" for an object that belongs to no namespace. */
  readonly namespace: string;
  readonly labels: Labels;
  readonly annotations: Labels;
  /** Undefined where nobody says, as in a file. */
  readonly createdAtMs: number | undefined;
}

export interface NamespaceObject extends Metadata {
  readonly kind: "Namespace";
}

export interface NodeObject extends Metadata {
  readonly kind: "Node";
  readonly locality: Locality;
}

export interface ServiceAccountObject extends Metadata {
  readonly kind: "ServiceAccount";
}

export interface PodObject extends Metadata {
  readonly kind: "Pod";
  readonly serviceAccount: string;
  /** "" until it is placed. */
  readonly node: string;
  readonly hostNetwork: boolean;
  readonly addresses: readonly IpAddress[];
  /** It has come to its end, and will not run again. */
  readonly isTerminal: boolean;
  /** Ready, and not on its way out. */
  readonly isReady: boolean;
  /** TCP ports of its containers by name. */
  readonly namedPorts: ReadonlyMap<string, number>;
  /** Of the deployment or the like that it belongs to, or its own. */
  readonly workloadName: string;
}

/** Where a service's port leads to on an endpoint. */
export type TargetPort =
  | { readonly kind: "number"; readonly port: number }
  | { readonly kind: "name"; readonly name: string };

export interface ServicePortObject {
  /** "" where the only port has none. */
  readonly name: string;
  readonly port: number;
  readonly target: TargetPort;
  readonly appProtocol: AppProtocol;
}

export interface ServiceObject extends Metadata {
  readonly kind: "Service";
  readonly type: "clusterIp" | "headless" | "externalName";
  /** Of no service where empty: its endpoints are then told by EndpointSlices. */
  readonly selector: Labels;
  readonly virtualIps: readonly IpAddress[];
  /** TCP only. */
  readonly ports: readonly ServicePortObject[];
  readonly ipFamilies: Service["ipFamilies"];
  readonly loadBalancing: LoadBalancing | undefined;
  readonly visibility: Service["visibility"];
  readonly sessionAffinityMs: number | undefined;
}

export interface SliceEndpoint {
  readonly addresses: readonly IpAddress[];
  readonly isReady: boolean;
  readonly node: string;
  /** Name of the pod behind it, in the slice's namespace. */
  readonly pod: string | undefined;
  readonly zone: string;
}

export interface EndpointSliceObject extends Metadata {
  readonly kind: "EndpointSlice";
  /** Name of the service in the same namespace; "" for none, which is no endpoint of anything. */
  readonly service: string;
  /** TCP ports by the name of the service's port. */
  readonly ports: ReadonlyMap<string, number>;
  readonly endpoints: readonly SliceEndpoint[];
}

export interface AuthorizationPolicyObject extends Metadata {
  readonly kind: "AuthorizationPolicy";
  /** Undefined selects every workload of the namespace, and in the root namespace of the mesh. */
  readonly selector: Labels | undefined;
  readonly policy: Policy;
}

export type MutualTlsMode = "unset" | "strict" | "permissive";

export interface PeerAuthenticationObject extends Metadata {
  readonly kind: "PeerAuthentication";
  readonly selector: Labels | undefined;
  readonly mode: MutualTlsMode;
  readonly portModes: ReadonlyMap<number, MutualTlsMode>;
  /** It could not be understood: plaintext is refused, whatever others of its level say. */
  readonly failsClosed: boolean;
}

export type MeshObject =
  | NamespaceObject
  | NodeObject
  | ServiceAccountObject
  | PodObject
  | ServiceObject
  | EndpointSliceObject
  | AuthorizationPolicyObject
  | PeerAuthenticationObject;

/** An object in force, and where to send a person who asks about it. */
export interface Placed<Item extends MeshObject = MeshObject> {
  readonly object: Item;
  readonly origin: Origin;
  lineOf(path: FieldPath): number;
}
