/** Our words for the enum values of the contract, in both directions. */
import type { Policy } from "#core/policy/policy.ts";
import type { AppProtocol, LoadBalancing, RoutingScope, Service } from "#core/service/service.ts";
import type { ApplicationTunnel, TunnelProtocol, Workload } from "#core/service/workload.ts";
import { Action, Scope } from "#wire/gen/authorization_pb.js";
import * as wire from "#wire/gen/workload_pb.js";

export interface Vocabulary<Word extends string> {
  readonly numberOf: Readonly<Record<Word, number>>;
  readonly wordOf: ReadonlyMap<number, Word>;
}

// LEGACY_ISTIO_MTLS has no word: a workload that can only be reached so cannot be reached.
export const TUNNEL_PROTOCOL = vocabulary<TunnelProtocol>({
  none: wire.TunnelProtocol.NONE,
  hbone: wire.TunnelProtocol.HBONE,
});

export const WORKLOAD_TYPE = vocabulary<Workload["workloadType"]>({
  deployment: wire.WorkloadType.DEPLOYMENT,
  cronjob: wire.WorkloadType.CRONJOB,
  pod: wire.WorkloadType.POD,
  job: wire.WorkloadType.JOB,
});

export const WORKLOAD_STATUS = vocabulary<"healthy" | "unhealthy">({
  healthy: wire.WorkloadStatus.HEALTHY,
  unhealthy: wire.WorkloadStatus.UNHEALTHY,
});

export const NETWORK_MODE = vocabulary<"standard" | "hostNetwork">({
  standard: wire.NetworkMode.STANDARD,
  hostNetwork: wire.NetworkMode.HOST_NETWORK,
});

export const TUNNEL_HEADER = vocabulary<ApplicationTunnel["protocol"]>({
  none: wire.ApplicationTunnel_Protocol.NONE,
  proxy: wire.ApplicationTunnel_Protocol.PROXY,
});

export const APP_PROTOCOL = vocabulary<AppProtocol>({
  unknown: wire.AppProtocol.UNKNOWN,
  http11: wire.AppProtocol.HTTP11,
  http2: wire.AppProtocol.HTTP2,
  grpc: wire.AppProtocol.GRPC,
  tcp: wire.AppProtocol.TCP,
  tls: wire.AppProtocol.TLS,
});

export const IP_FAMILIES = vocabulary<Service["ipFamilies"]>({
  automatic: wire.IPFamilies.AUTOMATIC,
  ipv4Only: wire.IPFamilies.IPV4_ONLY,
  ipv6Only: wire.IPFamilies.IPV6_ONLY,
  dual: wire.IPFamilies.DUAL,
});

export const VISIBILITY = vocabulary<Service["visibility"]>({
  public: wire.ServiceVisibility.PUBLIC,
  namespace: wire.ServiceVisibility.NAMESPACE,
});

// UNSPECIFIED_SCOPE has no word: it says nothing about where to look.
export const ROUTING_SCOPE = vocabulary<RoutingScope>({
  region: wire.LoadBalancing_Scope.REGION,
  zone: wire.LoadBalancing_Scope.ZONE,
  subzone: wire.LoadBalancing_Scope.SUBZONE,
  node: wire.LoadBalancing_Scope.NODE,
  cluster: wire.LoadBalancing_Scope.CLUSTER,
  network: wire.LoadBalancing_Scope.NETWORK,
});

export const BALANCING_MODE = vocabulary<LoadBalancing["mode"]>({
  unspecified: wire.LoadBalancing_Mode.UNSPECIFIED_MODE,
  strict: wire.LoadBalancing_Mode.STRICT,
  failover: wire.LoadBalancing_Mode.FAILOVER,
  passthrough: wire.LoadBalancing_Mode.PASSTHROUGH,
});

export const HEALTH_POLICY = vocabulary<LoadBalancing["healthPolicy"]>({
  onlyHealthy: wire.LoadBalancing_HealthPolicy.ONLY_HEALTHY,
  allowAll: wire.LoadBalancing_HealthPolicy.ALLOW_ALL,
});

export const POLICY_SCOPE = vocabulary<Policy["scope"]>({
  global: Scope.GLOBAL,
  namespace: Scope.NAMESPACE,
  workload: Scope.WORKLOAD_SELECTOR,
});

export const POLICY_ACTION = vocabulary<Policy["action"]>({
  allow: Action.ALLOW,
  deny: Action.DENY,
});

/** Identities of this trust domain are sent without it. */
export const DEFAULT_TRUST_DOMAIN = "cluster.local";
export const DEFAULT_CLUSTER_ID = "Kubernetes";
export const DEFAULT_SERVICE_ACCOUNT = "default";
export const DEFAULT_CAPACITY = 1;

/** Our extension of `Service`: a google.protobuf.Duration, how long a client keeps its endpoint. */
export const SESSION_AFFINITY_EXTENSION = "aquifer.mesh/session-affinity";

/**
 * Our extension of `Workload`: a google.protobuf.StringValue, "direct" or "encrypted". A server
 * that does not know it has not agreed to anything but tunnels.
 */
export const SAME_NODE_EXTENSION = "aquifer.mesh/same-node";

function vocabulary<Word extends string>(numberOf: Readonly<Record<Word, number>>) {
  // Object.entries() forgets that the keys of a Record are its words.
  const entries = Object.entries(numberOf) as [Word, number][];
  const wordOf: ReadonlyMap<number, Word> = new Map(entries.map(([word, n]) => [n, word]));
  return { numberOf, wordOf } satisfies Vocabulary<Word>;
}
