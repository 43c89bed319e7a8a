/**
 * Where a connection that leaves a pod goes, and in what form.
 *
 *   a service's address ── waypoint? ──────────────▶ tunnel to the waypoint
 *            └─ endpoint ─┐
 *   a workload's address ─┴─ waypoint of its own? ─▶ tunnel to the waypoint
 *                         ├─ in the mesh ──────────▶ tunnel to the workload
 *                         └─ not ──────────────────▶ plain TCP to the workload
 *   anything else ─────────────────────────────────▶ plain TCP to where the client wanted
 */
import { formatSocketAddress, type IpAddress, isLoopback, type SocketAddress } from "../ip.ts";
import { type SpiffeId, spiffeIdOf } from "../spiffe-id.ts";
import { type ChoiceContext, chooseEndpoint, targetPortOf } from "./endpoint.ts";
import type { MeshIndex } from "./mesh-index.ts";
import type { Service } from "./service.ts";
import { type GatewayAddress, identityOf, type Workload, type WorkloadUid } from "./workload.ts";

/** Ports of the agent in a pod's network namespace: nobody reaches them by way of the mesh. */
export const OUTBOUND_PORT = 15_001;
export const INBOUND_PORT = 15_006;
export const HBONE_PORT = 15_008;
const PROXY_PORTS: readonly number[] = [OUTBOUND_PORT, INBOUND_PORT, HBONE_PORT];

export function isProxyPort(port: number): boolean {
  return PROXY_PORTS.includes(port);
}

export interface OutboundQuestion {
  /** The workload that connects. */
  readonly client: Workload;
  /** Where it wanted to go. */
  readonly destination: SocketAddress;
  /** Endpoints already tried in vain. */
  readonly tried: ReadonlySet<WorkloadUid>;
  readonly outstanding: (uid: WorkloadUid) => number;
  /** In [0, 1). */
  readonly random: () => number;
}

export type OutboundRoute =
  /** As the client asked, unencrypted: the destination is not of the mesh. */
  | { readonly kind: "passthrough"; readonly address: SocketAddress; readonly service?: Service }
  /** To a workload that is known, but that has no tunnel. */
  | {
      readonly kind: "tcp";
      readonly address: SocketAddress;
      readonly workload: Workload;
      readonly service: Service | undefined;
    }
  | {
      readonly kind: "tunnel";
      /** The other end of the tunnel. */
      readonly address: SocketAddress;
      readonly authority: string;
      /** One of them has to stand in the certificate of the other end. */
      readonly identities: readonly SpiffeId[];
      /** Who ends the tunnel: the destination, or a waypoint for it. */
      readonly workload: Workload;
      readonly service: Service | undefined;
      readonly through: "workload" | "waypoint";
    }
  | { readonly kind: "refused"; readonly because: Refusal; readonly service: Service | undefined };

/** Why a connection goes nowhere. It is never let through in another form instead. */
export type Refusal =
  | "proxyPort" /* loopback at one of the agent's own ports */
  | "noSuchPort" /* the service has no such port */
  | "noEndpoint" /* no healthy endpoint offers the port */
  | "unknownWaypoint" /* the waypoint is not known, or has no endpoint */
  | "otherNetwork" /* only a gateway leads there, and this version does not use one */
  | "nameOnly"; /* the endpoint is a name to be resolved, which this version does not do */

/** Decides one connection. With more in `tried`, decides it again for another endpoint. */
export function routeOutbound(index: MeshIndex, question: OutboundQuestion): OutboundRoute {
  const { client, destination } = question;
  if (isLoopback(destination.ip) && isProxyPort(destination.port)) {
    return refuse("proxyPort", undefined);
  }
  const service = index.serviceAt(client.network, destination.ip, client.namespace);
  if (service !== undefined) return routeToService(index, service, question);
  const workload = index.workloadAt(client.network, destination.ip);
  if (workload === undefined) return { kind: "passthrough", address: destination };
  return routeToWorkload(index, workload, question);
}

function routeToService(
  index: MeshIndex,
  service: Service,
  question: OutboundQuestion,
): OutboundRoute {
  const { destination } = question;
  const waypoint = waypointOf(service, question.random);
  if (waypoint !== undefined) {
    return tunnelToWaypoint(index, waypoint, formatSocketAddress(destination), service, question);
  }
  if (service.loadBalancing?.mode === "passthrough") {
    return { kind: "passthrough", address: destination, service };
  }
  if (!service.ports.some(({ port }) => port === destination.port)) {
    return refuse("noSuchPort", service);
  }
  const endpoint = chooseEndpoint(
    service,
    index.endpointsOf(service.key),
    choiceContext(question, destination),
  );
  if (endpoint === undefined) return refuse("noEndpoint", service);
  if (endpoint.workload.network !== question.client.network) return refuse("otherNetwork", service);
  if (endpoint.address === undefined) return refuse("nameOnly", service);
  return toWorkload(endpoint.workload, endpoint.address, service);
}

function routeToWorkload(
  index: MeshIndex,
  workload: Workload,
  question: OutboundQuestion,
): OutboundRoute {
  const { client, destination } = question;
  const isOwnWaypoint = isEndpointOfWaypoint(index, workload, client);
  if (workload.waypoint !== undefined && !isOwnWaypoint) {
    const authority = formatSocketAddress(destination);
    return tunnelToWaypoint(index, workload.waypoint, authority, undefined, question);
  }
  if (question.tried.has(workload.uid)) return refuse("noEndpoint", undefined);
  return toWorkload(workload, destination, undefined);
}

function toWorkload(
  workload: Workload,
  address: SocketAddress,
  service: Service | undefined,
): OutboundRoute {
  if (workload.tunnelProtocol === "none") return { kind: "tcp", address, workload, service };
  return {
    kind: "tunnel",
    address: { ip: address.ip, port: HBONE_PORT },
    authority: formatSocketAddress(address),
    identities: identitiesOf(workload, service),
    workload,
    service,
    through: "workload",
  };
}

function tunnelToWaypoint(
  index: MeshIndex,
  waypoint: GatewayAddress,
  authority: string,
  service: Service | undefined,
  question: OutboundQuestion,
): OutboundRoute {
  const found = findWaypoint(index, waypoint, question);
  if (found === undefined) return refuse("unknownWaypoint", service);
  if (found.workload.network !== question.client.network) return refuse("otherNetwork", service);
  return {
    kind: "tunnel",
    address: found.address,
    authority,
    identities: identitiesOf(found.workload, found.service),
    workload: found.workload,
    service,
    through: "waypoint",
  };
}

interface FoundWaypoint {
  readonly workload: Workload;
  readonly address: SocketAddress;
  readonly service: Service | undefined;
}

function findWaypoint(
  index: MeshIndex,
  waypoint: GatewayAddress,
  question: OutboundQuestion,
): FoundWaypoint | undefined {
  const { client, destination } = question;
  const service =
    waypoint.kind === "hostname"
      ? index.services.get(waypoint.service)
      : index.serviceAt(waypoint.network, waypoint.ip, client.namespace);
  if (service !== undefined) {
    const context = choiceContext(question, { ip: destination.ip, port: waypoint.hbonePort });
    const endpoint = chooseEndpoint(service, index.endpointsOf(service.key), context);
    return endpoint?.address === undefined
      ? undefined
      : { workload: endpoint.workload, address: endpoint.address, service };
  }
  if (waypoint.kind === "hostname") return undefined;
  const workload = index.workloadAt(waypoint.network, waypoint.ip);
  if (workload === undefined || question.tried.has(workload.uid)) return undefined;
  const address = { ip: waypoint.ip, port: waypoint.hbonePort };
  return { workload, address, service: undefined };
}

/** Whether `client` is an instance of the waypoint of `workload`, which must not go round again. */
function isEndpointOfWaypoint(index: MeshIndex, workload: Workload, client: Workload): boolean {
  const { waypoint } = workload;
  if (waypoint === undefined) return false;
  if (waypoint.kind === "address") {
    const service = index.serviceAt(waypoint.network, waypoint.ip, client.namespace);
    if (service !== undefined) return client.services.has(service.key);
    return client.network === waypoint.network && client.addresses.includes(waypoint.ip);
  }
  return client.services.has(waypoint.service);
}

function waypointOf(service: Service, random: () => number): GatewayAddress | undefined {
  const total = service.weightedWaypoints.reduce((sum, { weight }) => sum + weight, 0);
  if (total === 0) return service.waypoint;
  let rest = random() * total;
  for (const { destination, weight } of service.weightedWaypoints) {
    rest -= weight;
    if (rest < 0) return destination;
  }
  return service.waypoint;
}

function identitiesOf(workload: Workload, service: Service | undefined): readonly SpiffeId[] {
  const accepted = (service?.subjectAltNames ?? []).map(spiffeIdOf);
  return [...accepted.filter((id) => id !== undefined), identityOf(workload)];
}

function choiceContext(question: OutboundQuestion, dialled: SocketAddress): ChoiceContext {
  const { client, tried, outstanding, random } = question;
  return { client, servicePort: dialled.port, dialled: dialled.ip, tried, outstanding, random };
}

function refuse(because: Refusal, service: Service | undefined): OutboundRoute {
  return { kind: "refused", because, service };
}

/** Where the end of a tunnel connects to, or why it does not: the status to answer. */
export type TunnelDestination =
  | { readonly kind: "dial"; readonly port: number; readonly service: Service | undefined }
  | { readonly kind: "refused"; readonly status: 400 | 503; readonly reason: string };

/** `host:port` of a CONNECT. */
export type Authority =
  | { readonly kind: "address"; readonly address: SocketAddress }
  | { readonly kind: "hostname"; readonly hostname: string; readonly port: number };

/**
 * Finds what `authority` means at the pod whose tunnel end received it. The address dialled is
 * always the pod's own; what is asked here is whether it was meant, and which port.
 *
 * @param localIp  where the tunnel arrived
 */
export function resolveTunnelDestination(
  index: MeshIndex,
  local: Workload,
  localIp: IpAddress,
  authority: Authority,
): TunnelDestination {
  const found =
    authority.kind === "address"
      ? destinationByAddress(index, local, localIp, authority.address)
      : destinationByHostname(index, local, authority);
  if (found.kind === "refused") return found;
  const port = local.applicationTunnel?.port || found.port;
  if (isProxyPort(port)) {
    return { kind: "refused", status: 503, reason: `port ${port} is the mesh's own` };
  }
  return { ...found, port };
}

function destinationByAddress(
  index: MeshIndex,
  local: Workload,
  localIp: IpAddress,
  address: SocketAddress,
): TunnelDestination {
  const isOwn = address.ip === localIp || local.applicationTunnel !== undefined;
  if (isOwn || isWaypointFor(index, local, address.ip)) {
    return { kind: "dial", port: address.port, service: undefined };
  }
  const reason = `"${formatSocketAddress(address)}" is not an address of this workload`;
  return { kind: "refused", status: 400, reason };
}

function isWaypointFor(index: MeshIndex, local: Workload, ip: IpAddress): boolean {
  const target =
    index.serviceAt(local.network, ip, local.namespace) ?? index.workloadAt(local.network, ip);
  const waypoint = target?.waypoint;
  if (waypoint === undefined) return false;
  if (waypoint.kind === "hostname") return local.services.has(waypoint.service);
  return waypoint.network === local.network && local.addresses.includes(waypoint.ip);
}

function destinationByHostname(
  index: MeshIndex,
  local: Workload,
  { hostname, port }: Authority & { kind: "hostname" },
): TunnelDestination {
  const service = index.serviceNamed(hostname, local.namespace);
  const target = service === undefined ? 0 : targetPortOf(service, local, port);
  if (service === undefined || target === 0) {
    const reason = service === undefined ? "no such service" : "no such port";
    return { kind: "refused", status: 503, reason: `"${hostname}:${port}": ${reason}` };
  }
  return { kind: "dial", port: target, service };
}
