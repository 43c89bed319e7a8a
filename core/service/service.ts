import type { IpAddress, IpBlock } from "../ip.ts";
import type { GatewayAddress, ServiceKey } from "./workload.ts";

export type AppProtocol = "unknown" | "http11" | "http2" | "grpc" | "tcp" | "tls";

export interface ServicePort {
  readonly port: number;
  /** 0 where the port has a name and each endpoint says its number. */
  readonly targetPort: number;
  readonly appProtocol: AppProtocol;
}

/** An address clients dial to reach a service, in one network. */
export interface NetworkAddress {
  readonly network: string;
  readonly block: IpBlock;
}

export type RoutingScope = "region" | "zone" | "subzone" | "node" | "cluster" | "network";

export interface LoadBalancing {
  /** Most important first: an endpoint is better the more of them it shares with the client. */
  readonly routingPreference: readonly RoutingScope[];
  readonly mode: "unspecified" | "strict" | "failover" | "passthrough";
  readonly healthPolicy: "onlyHealthy" | "allowAll";
}

export interface WeightedWaypoint {
  readonly destination: GatewayAddress;
  readonly weight: number;
}

/** A name with addresses, and the rules by which a connection finds an endpoint of it. */
export interface Service {
  readonly key: ServiceKey;
  readonly name: string;
  readonly namespace: string;
  readonly hostname: string;
  readonly addresses: readonly NetworkAddress[];
  readonly ports: readonly ServicePort[];
  /** Identities accepted from any endpoint, besides the endpoint's own. */
  readonly subjectAltNames: readonly string[];
  readonly waypoint: GatewayAddress | undefined;
  readonly weightedWaypoints: readonly WeightedWaypoint[];
  readonly loadBalancing: LoadBalancing | undefined;
  readonly ipFamilies: "automatic" | "ipv4Only" | "ipv6Only" | "dual";
  /** Made from a Kubernetes Service: it wins where several services claim one name or address. */
  readonly canonical: boolean;
  readonly visibility: "public" | "namespace";
  /** A client's connections keep going to one endpoint for this long; undefined turns it off. */
  readonly sessionAffinityMs: number | undefined;
}

/** The service's addresses that are one address each, in `network`. */
export function virtualIpsOf(service: Service, network: string): readonly IpAddress[] {
  return service.addresses
    .filter(({ network: own, block }) => own === network && isSingle(block))
    .map(({ block }) => block.address);
}

function isSingle({ address, length }: IpBlock): boolean {
  return length === (address.includes(":") ? 128 : 32);
}
