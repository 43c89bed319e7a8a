/**
 * Addresses (workloads and services) from the wire: message → core type, or a refusal that names
 * the field. Nothing is defaulted but what the contract itself gives a default.
 *
 * Unknown fields and extensions are let go here: an address says where things are, and a newer
 * control server may say more about that than we use. In policies they are refused
 * (decode-policy.ts), since there each of them could be the restriction.
 */
import { fromBinary } from "@bufbuild/protobuf";
import { type Any, anyUnpack, DurationSchema, StringValueSchema } from "@bufbuild/protobuf/wkt";
import { reasonOf } from "#core/errors.ts";
import { blockOf, type IpBlock, isIpv4 } from "#core/ip.ts";
import type { LoadBalancing, Service, ServicePort } from "#core/service/service.ts";
import {
  type ApplicationTunnel,
  type GatewayAddress,
  identityOf,
  type PolicyKey,
  type PortMap,
  type SameNode,
  type ServiceKey,
  serviceKeyOf,
  type TunnelProtocol,
  type Workload,
  type WorkloadUid,
} from "#core/service/workload.ts";
import type * as wire from "#wire/gen/workload_pb.js";
import { AddressSchema, TunnelProtocol as WireTunnelProtocol } from "#wire/gen/workload_pb.js";
import {
  decoding,
  each,
  inside,
  ipAddress,
  nonEmpty,
  parsed,
  port,
  portOrZero,
  refuse,
  word,
} from "./field.ts";
import {
  APP_PROTOCOL,
  BALANCING_MODE,
  DEFAULT_CAPACITY,
  DEFAULT_CLUSTER_ID,
  DEFAULT_SERVICE_ACCOUNT,
  DEFAULT_TRUST_DOMAIN,
  HEALTH_POLICY,
  IP_FAMILIES,
  NETWORK_MODE,
  ROUTING_SCOPE,
  SAME_NODE_EXTENSION,
  SESSION_AFFINITY_EXTENSION,
  TUNNEL_HEADER,
  TUNNEL_PROTOCOL,
  VISIBILITY,
  WORKLOAD_STATUS,
  WORKLOAD_TYPE,
} from "./vocabulary.ts";

export type DecodedAddress =
  | { readonly kind: "workload"; readonly key: WorkloadUid; readonly workload: Workload }
  | { readonly kind: "service"; readonly key: ServiceKey; readonly service: Service };

/**
 * @param name  of the resource, for the message
 * @throws MeshError `RESOURCE_INVALID`
 */
export function decodeAddress(name: string, bytes: Uint8Array): DecodedAddress {
  return decoding(`address "${name}"`, () => {
    const { type } = parseMessage(() => fromBinary(AddressSchema, bytes));
    switch (type.case) {
      case "workload": {
        const workload = readWorkload(type.value);
        return { kind: "workload", key: workload.uid, workload };
      }
      case "service": {
        const service = readService(type.value);
        return { kind: "service", key: service.key, service };
      }
      case undefined:
        return refuse("type", "is neither a workload nor a service");
    }
  });
}

/** @throws MeshError `RESOURCE_INVALID` */
export function decodeWorkload(message: wire.Workload): Workload {
  return decoding(`workload "${message.uid}"`, () => readWorkload(message));
}

/** @throws MeshError `RESOURCE_INVALID` */
export function decodeService(message: wire.Service): Service {
  const key = `${message.namespace}/${message.hostname}`;
  return decoding(`service "${key}"`, () => readService(message));
}

/** Names bytes that are no protobuf message at all. */
export function parseMessage<Message>(parse: () => Message): Message {
  try {
    return parse();
  } catch (error) {
    return refuse("message", `is not well-formed: ${reasonOf(error)}`);
  }
}

function readWorkload(message: wire.Workload): Workload {
  const workload: Workload = {
    uid: nonEmpty("uid", message.uid) as WorkloadUid,
    name: message.name,
    namespace: message.namespace,
    addresses: each("addresses", message.addresses, (bytes) => ipAddress("", bytes)),
    hostname: message.hostname,
    network: message.network,
    tunnelProtocol: readTunnelProtocol(message.tunnelProtocol),
    trustDomain: message.trustDomain || DEFAULT_TRUST_DOMAIN,
    serviceAccount: message.serviceAccount || DEFAULT_SERVICE_ACCOUNT,
    node: message.node,
    clusterId: message.clusterId || DEFAULT_CLUSTER_ID,
    canonicalName: message.canonicalName,
    canonicalRevision: message.canonicalRevision,
    workloadType: word("workload_type", WORKLOAD_TYPE, message.workloadType),
    workloadName: message.workloadName,
    nativeTunnel: message.nativeTunnel,
    hostNetwork: word("network_mode", NETWORK_MODE, message.networkMode) === "hostNetwork",
    healthy: word("status", WORKLOAD_STATUS, message.status) === "healthy",
    policies: each("authorization_policies", message.authorizationPolicies, readPolicyKey),
    services: readMemberships(message.services),
    waypoint: readGateway("waypoint", message.waypoint),
    networkGateway: readGateway("network_gateway", message.networkGateway),
    applicationTunnel: readApplicationTunnel(message.applicationTunnel),
    locality: {
      region: message.locality?.region ?? "",
      zone: message.locality?.zone ?? "",
      subzone: message.locality?.subzone ?? "",
    },
    sameNode: readSameNode(message.extensions),
    capacity: message.capacity ?? DEFAULT_CAPACITY,
  };
  // Found out here once, instead of on each connection to it.
  parsed("service_account", () => identityOf(workload));
  return workload;
}

function readTunnelProtocol(value: wire.TunnelProtocol): TunnelProtocol {
  const isLegacy = value === WireTunnelProtocol.LEGACY_ISTIO_MTLS;
  if (isLegacy) refuse("tunnel_protocol", "is LEGACY_ISTIO_MTLS, which is only spoken by sidecars");
  return word("tunnel_protocol", TUNNEL_PROTOCOL, value);
}

function readPolicyKey(text: string): PolicyKey {
  return isNamespacedName(text) ? (text as PolicyKey) : refuse("", `"${text}" names no policy`);
}

function readMemberships(services: Readonly<Record<string, wire.PortList>>) {
  const memberships = new Map<ServiceKey, PortMap>();
  for (const [key, { ports }] of Object.entries(services)) {
    if (!isNamespacedName(key)) refuse("services", `"${key}" names no service`);
    const field = () => each("ports", ports, readEndpointPort);
    memberships.set(key as ServiceKey, new Map(inside(`services["${key}"]`, field)));
  }
  return memberships;
}

// Its app_protocol is the service's to say (ServicePort), and only checked here.
function readEndpointPort(message: wire.Port): readonly [number, number] {
  const { servicePort, targetPort } = readPort(message, port("service_port", message.servicePort));
  return [servicePort, targetPort];
}

function readPort(message: wire.Port, servicePort: number) {
  const targetPort = portOrZero("target_port", message.targetPort);
  const appProtocol = word("app_protocol", APP_PROTOCOL, message.appProtocol);
  return { servicePort, targetPort, appProtocol };
}

function readApplicationTunnel(
  message: wire.ApplicationTunnel | undefined,
): ApplicationTunnel | undefined {
  if (!message) return undefined;
  return inside("application_tunnel", () => ({
    protocol: word("protocol", TUNNEL_HEADER, message.protocol),
    port: portOrZero("port", message.port),
  }));
}

function readGateway(field: string, message: wire.GatewayAddress | undefined) {
  return message && inside(field, () => decodeGateway(message));
}

function decodeGateway({ destination, hboneMtlsPort }: wire.GatewayAddress): GatewayAddress {
  const hbonePort = port("hbone_mtls_port", hboneMtlsPort);
  switch (destination.case) {
    case "hostname": {
      const { namespace, hostname } = destination.value;
      return { kind: "hostname", service: readServiceKey(namespace, hostname), hbonePort };
    }
    case "address": {
      const { network } = destination.value;
      const { address, length } = inside("address", () => readBlock(destination.value));
      if (length !== lengthMaxOf(address))
        refuse("address.length", "makes it more than one address");
      return { kind: "address", network, ip: address, hbonePort };
    }
    case undefined:
      return refuse("destination", "is neither a hostname nor an address");
  }
}

function readService(message: wire.Service): Service {
  // ingress_use_waypoint is for gateways, which read it themselves; nodes have no use for it.
  return {
    key: readServiceKey(message.namespace, message.hostname),
    name: message.name,
    namespace: message.namespace,
    hostname: message.hostname,
    addresses: each("addresses", message.addresses, (address) => ({
      network: address.network,
      block: readBlock(address),
    })),
    ports: each("ports", message.ports, readServicePort),
    subjectAltNames: message.subjectAltNames,
    waypoint: readGateway("waypoint", message.waypoint),
    weightedWaypoints: each("weighted_waypoints", message.weightedWaypoints, (weighted) => ({
      destination:
        readGateway("destination", weighted.destination) ?? refuse("destination", "is missing"),
      weight: weighted.weight,
    })),
    loadBalancing: readLoadBalancing(message.loadBalancing),
    ipFamilies: word("ip_families", IP_FAMILIES, message.ipFamilies),
    canonical: message.canonical,
    visibility: word("visibility", VISIBILITY, message.visibility),
    sessionAffinityMs: readSessionAffinity(message.extensions),
  };
}

function readServicePort(message: wire.Port): ServicePort {
  const { servicePort, ...rest } = readPort(message, port("service_port", message.servicePort));
  return { port: servicePort, ...rest };
}

function readServiceKey(namespace: string, hostname: string): ServiceKey {
  if (namespace.includes("/")) refuse("namespace", `"${namespace}" has a slash`);
  return serviceKeyOf(nonEmpty("namespace", namespace), nonEmpty("hostname", hostname));
}

function readBlock({ address, length }: wire.NetworkAddress): IpBlock {
  const ip = ipAddress("address", address);
  return parsed("length", () => blockOf(ip, blockLength(address, length, lengthMaxOf(ip))));
}

/** An IPv4 address may come as the IPv6 one that holds it; its length then counts 96 bits more. */
export function blockLength(
  bytes: Uint8Array,
  length: number | undefined,
  lengthMax: number,
): number {
  if (length === undefined) return lengthMax;
  return length - (8 * bytes.length - lengthMax);
}

function lengthMaxOf(ip: IpBlock["address"]): number {
  return isIpv4(ip) ? 32 : 128;
}

function readLoadBalancing(message: wire.LoadBalancing | undefined): LoadBalancing | undefined {
  if (!message) return undefined;
  return inside("load_balancing", () => ({
    routingPreference: each("routing_preference", message.routingPreference, (scope) =>
      word("", ROUTING_SCOPE, scope),
    ),
    mode: word("mode", BALANCING_MODE, message.mode),
    healthPolicy: word("health_policy", HEALTH_POLICY, message.healthPolicy),
  }));
}

function readSameNode(extensions: readonly wire.Extension[]): SameNode {
  const extension = extensions.find(({ name }) => name === SAME_NODE_EXTENSION);
  if (extension === undefined) return "encrypted";
  const { config } = extension;
  return inside("extensions", () => {
    const text = config && parseMessage(() => anyUnpack(config, StringValueSchema));
    if (text?.value === "direct" || text?.value === "encrypted") return text.value;
    const found = text === undefined ? "holds no text" : `is "${text.value}"`;
    return refuse(SAME_NODE_EXTENSION, `${found}, expected "direct" or "encrypted"`);
  });
}

// Other extensions than ours are let go: they are meant for whoever knows their name.
function readSessionAffinity(extensions: readonly wire.Extension[]): number | undefined {
  const extension = extensions.find(({ name }) => name === SESSION_AFFINITY_EXTENSION);
  return extension && inside("extensions", () => readDuration(extension.config));
}

function readDuration(config: Any | undefined): number {
  const duration = config && parseMessage(() => anyUnpack(config, DurationSchema));
  if (!duration) return refuse(SESSION_AFFINITY_EXTENSION, "holds no google.protobuf.Duration");
  const durationMs = Number(duration.seconds) * 1_000 + duration.nanos / 1_000_000;
  if (!Number.isSafeInteger(durationMs) || durationMs <= 0) {
    return refuse(SESSION_AFFINITY_EXTENSION, `is ${durationMs} ms, not a time to keep endpoints`);
  }
  return durationMs;
}

function isNamespacedName(text: string): boolean {
  const slash = text.indexOf("/");
  return slash > 0 && slash < text.length - 1;
}
