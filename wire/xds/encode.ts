/**
 * Core types to messages, the exact inverse of decode.ts. Workloads, services and policies are
 * taken apart by name and in full, so that a field which is new in core/ stops the build here.
 */
import { create, toBinary } from "@bufbuild/protobuf";
import { anyPack, DurationSchema, EmptySchema, StringValueSchema } from "@bufbuild/protobuf/wkt";
import { type IpBlock, ipToBytes } from "#core/ip.ts";
import type { Match, Policy, StringMatch } from "#core/policy/policy.ts";
import type { LoadBalancing, NetworkAddress, Service } from "#core/service/service.ts";
import type { GatewayAddress, Workload } from "#core/service/workload.ts";
import * as policy from "#wire/gen/authorization_pb.js";
import * as wire from "#wire/gen/workload_pb.js";
import {
  APP_PROTOCOL,
  BALANCING_MODE,
  DEFAULT_CAPACITY,
  DEFAULT_CLUSTER_ID,
  DEFAULT_TRUST_DOMAIN,
  HEALTH_POLICY,
  IP_FAMILIES,
  NETWORK_MODE,
  POLICY_ACTION,
  POLICY_SCOPE,
  ROUTING_SCOPE,
  SAME_NODE_EXTENSION,
  SESSION_AFFINITY_EXTENSION,
  TUNNEL_HEADER,
  TUNNEL_PROTOCOL,
  VISIBILITY,
  WORKLOAD_STATUS,
  WORKLOAD_TYPE,
} from "./vocabulary.ts";

/** The bytes of an `Address` that holds the workload. */
export function encodeWorkloadAddress(workload: Workload): Uint8Array {
  const type = { case: "workload", value: encodeWorkload(workload) } as const;
  return toBinary(wire.AddressSchema, create(wire.AddressSchema, { type }));
}

/** The bytes of an `Address` that holds the service. */
export function encodeServiceAddress(service: Service): Uint8Array {
  const type = { case: "service", value: encodeService(service) } as const;
  return toBinary(wire.AddressSchema, create(wire.AddressSchema, { type }));
}

/** The bytes of an `Authorization`. */
export function encodeAuthorization(value: Policy): Uint8Array {
  return toBinary(policy.AuthorizationSchema, encodePolicy(value));
}

/** The inverse of `decodeWorkload()`. What the contract defaults is left out. */
export function encodeWorkload(workload: Workload): wire.Workload {
  const { uid, name, namespace, hostname, network, node, serviceAccount, ...rest } = workload;
  const { canonicalName, canonicalRevision, workloadName, nativeTunnel, ...others } = rest;
  const { addresses, policies, services, locality, capacity, ...words } = others;
  const { tunnelProtocol, workloadType, healthy, hostNetwork, trustDomain, ...last } = words;
  const { clusterId, waypoint, networkGateway, applicationTunnel, sameNode, ...nothing } = last;
  return create(wire.WorkloadSchema, {
    ...(nothing satisfies Nothing),
    uid,
    name,
    namespace,
    hostname,
    network,
    node,
    serviceAccount,
    canonicalName,
    canonicalRevision,
    workloadName,
    nativeTunnel,
    addresses: addresses.map(ipToBytes),
    authorizationPolicies: [...policies],
    services: encodeMemberships(services),
    capacity: capacity === DEFAULT_CAPACITY ? undefined : capacity,
    tunnelProtocol: TUNNEL_PROTOCOL.numberOf[tunnelProtocol],
    workloadType: WORKLOAD_TYPE.numberOf[workloadType],
    status: WORKLOAD_STATUS.numberOf[healthy ? "healthy" : "unhealthy"],
    networkMode: NETWORK_MODE.numberOf[hostNetwork ? "hostNetwork" : "standard"],
    trustDomain: trustDomain === DEFAULT_TRUST_DOMAIN ? "" : trustDomain,
    clusterId: clusterId === DEFAULT_CLUSTER_ID ? "" : clusterId,
    waypoint: waypoint && encodeGateway(waypoint),
    networkGateway: networkGateway && encodeGateway(networkGateway),
    applicationTunnel: applicationTunnel && {
      protocol: TUNNEL_HEADER.numberOf[applicationTunnel.protocol],
      port: applicationTunnel.port,
    },
    locality: Object.values(locality).every((text) => text === "") ? undefined : locality,
    extensions: sameNode === "encrypted" ? [] : [encodeSameNode(sameNode)],
  });
}

/** The inverse of `decodeService()`. */
export function encodeService(service: Service): wire.Service {
  const { key: _key, name, namespace, hostname, subjectAltNames, canonical, ...rest } = service;
  const { addresses, ports, waypoint, weightedWaypoints, loadBalancing, ...others } = rest;
  const { ipFamilies, visibility, sessionAffinityMs, ...nothing } = others;
  return create(wire.ServiceSchema, {
    ...(nothing satisfies Nothing),
    name,
    namespace,
    hostname,
    subjectAltNames: [...subjectAltNames],
    canonical,
    addresses: addresses.map(encodeNetworkAddress),
    ports: ports.map(({ port, targetPort, appProtocol }) => ({
      servicePort: port,
      targetPort,
      appProtocol: APP_PROTOCOL.numberOf[appProtocol],
    })),
    waypoint: waypoint && encodeGateway(waypoint),
    weightedWaypoints: weightedWaypoints.map(({ destination, weight }) => ({
      destination: encodeGateway(destination),
      weight,
    })),
    loadBalancing: loadBalancing && encodeLoadBalancing(loadBalancing),
    ipFamilies: IP_FAMILIES.numberOf[ipFamilies],
    visibility: VISIBILITY.numberOf[visibility],
    extensions: sessionAffinityMs === undefined ? [] : [encodeSessionAffinity(sessionAffinityMs)],
  });
}

/** The inverse of `decodePolicy()`. */
export function encodePolicy(value: Policy): policy.Authorization {
  const { key: _key, name, namespace, scope, action, dryRun, rules, ...nothing } = value;
  return create(policy.AuthorizationSchema, {
    ...(nothing satisfies Nothing),
    name,
    namespace,
    scope: POLICY_SCOPE.numberOf[scope],
    action: POLICY_ACTION.numberOf[action],
    dryRun,
    rules: rules.map((clauses) => ({
      clauses: clauses.map((matches) => ({ matches: matches.map(encodeMatch) })),
    })),
  });
}

/** What has to be left of a value once each of its fields was taken out by name. */
type Nothing = Readonly<Record<string, never>>;

function encodeMemberships(services: Workload["services"]) {
  const memberships = [...services].map(([key, ports]) => {
    const pairs = [...ports].map(([servicePort, targetPort]) => ({ servicePort, targetPort }));
    return [key, create(wire.PortListSchema, { ports: pairs })] as const;
  });
  return Object.fromEntries(memberships);
}

function encodeGateway(gateway: GatewayAddress): wire.GatewayAddress {
  return create(wire.GatewayAddressSchema, {
    hboneMtlsPort: gateway.hbonePort,
    destination: encodeDestination(gateway),
  });
}

function encodeDestination(gateway: GatewayAddress): wire.GatewayAddress["destination"] {
  switch (gateway.kind) {
    case "hostname": {
      const slash = gateway.service.indexOf("/");
      const namespace = gateway.service.slice(0, slash);
      const hostname = gateway.service.slice(slash + 1);
      const value = create(wire.NamespacedHostnameSchema, { namespace, hostname });
      return { case: "hostname", value };
    }
    case "address": {
      const address = ipToBytes(gateway.ip);
      const value = create(wire.NetworkAddressSchema, { network: gateway.network, address });
      return { case: "address", value };
    }
  }
}

function encodeNetworkAddress({ network, block }: NetworkAddress) {
  const { address, length } = encodeBlock(block);
  const isSingle = length === 8 * address.length;
  return create(wire.NetworkAddressSchema, { network, address, ...(!isSingle && { length }) });
}

function encodeBlock({ address, length }: IpBlock) {
  return { address: ipToBytes(address), length };
}

function encodeLoadBalancing({ routingPreference, mode, healthPolicy }: LoadBalancing) {
  return create(wire.LoadBalancingSchema, {
    routingPreference: routingPreference.map((scope) => ROUTING_SCOPE.numberOf[scope]),
    mode: BALANCING_MODE.numberOf[mode],
    healthPolicy: HEALTH_POLICY.numberOf[healthPolicy],
  });
}

function encodeSameNode(value: string) {
  const text = create(StringValueSchema, { value });
  return { name: SAME_NODE_EXTENSION, config: anyPack(StringValueSchema, text) };
}

function encodeSessionAffinity(durationMs: number) {
  const duration = create(DurationSchema, {
    seconds: BigInt(Math.trunc(durationMs / 1_000)),
    nanos: (durationMs % 1_000) * 1_000_000,
  });
  return { name: SESSION_AFFINITY_EXTENSION, config: anyPack(DurationSchema, duration) };
}

function encodeMatch(match: Match): policy.Match {
  const { namespaces, notNamespaces, principals, notPrincipals, ...rest } = match;
  const { serviceAccounts, notServiceAccounts, sourceIps, notSourceIps, ...others } = rest;
  const { destinationIps, notDestinationIps, destinationPorts, ...last } = others;
  const { notDestinationPorts, ...nothing } = last;
  return create(policy.MatchSchema, {
    ...(nothing satisfies Nothing),
    namespaces: namespaces.map(encodeString),
    notNamespaces: notNamespaces.map(encodeString),
    principals: principals.map(encodeString),
    notPrincipals: notPrincipals.map(encodeString),
    serviceAccounts: serviceAccounts.map((account) => ({ ...account })),
    notServiceAccounts: notServiceAccounts.map((account) => ({ ...account })),
    sourceIps: sourceIps.map(encodeBlock),
    notSourceIps: notSourceIps.map(encodeBlock),
    destinationIps: destinationIps.map(encodeBlock),
    notDestinationIps: notDestinationIps.map(encodeBlock),
    destinationPorts: [...destinationPorts],
    notDestinationPorts: [...notDestinationPorts],
  });
}

function encodeString(match: StringMatch): policy.StringMatch {
  const matchType =
    match.kind === "presence"
      ? ({ case: "presence", value: create(EmptySchema) } as const)
      : { case: match.kind, value: match.value };
  return create(policy.StringMatchSchema, { matchType });
}
