/** Connections that come to a pod: asks policy, and takes them to the application. */
import { MeshError, reasonOf } from "#core/errors.ts";
import {
  formatSocketAddress,
  type IpAddress,
  isIpv4,
  isLoopback,
  type SocketAddress,
} from "#core/ip.ts";
import type { Connection } from "#core/policy/policy.ts";
import { isProxyPort, resolveTunnelDestination } from "#core/service/outbound.ts";
import type { Service } from "#core/service/service.ts";
import { identityOf, type Workload } from "#core/service/workload.ts";
import { partsOfSpiffeId, type SpiffeId, spiffeIdOf } from "#core/spiffe-id.ts";
import type {
  ConnectFailure,
  PlainConnection,
  TlsMaterial,
  TunnelListenerOptions,
  TunnelRequest,
} from "#wire/hbone/engine.ts";
import { type ConnectionFacts, flagsOf } from "./connection-log.ts";
import { dialFrom, type PodPlace, type ProxyContext } from "./context.ts";
import { baggageOf, forwardedHost, parseAuthority, parseBaggage } from "./headers.ts";
import { describeDenial } from "./live-inbound.ts";
import type { PartyFacts } from "./traffic.ts";

/**
 * What the connection to the application comes from: an address that no wire can carry.
 *
 * IPv6 has none to spare. From ::1 the kernel cannot send the reset that says that nobody listens,
 * so a refused port would be a time-out; the pod's own address, which is what an unbound socket
 * gets, is no less local.
 */
const SOURCE_IPV4 = "127.0.0.6" as IpAddress;

/** How the tunnel listener of a pod is to behave. */
export function tunnelListenerOptions(context: ProxyContext, pod: PodPlace): TunnelListenerOptions {
  return {
    material: () => materialOf(context, pod),
    refusePeer: (uris) => {
      const workload = context.state.localWorkload(pod);
      if (workload === undefined) return "discovery does not know this workload any more";
      if (trustedIdentity(uris, workload) !== undefined) return undefined;
      const found = uris.join(", ") || "no identity";
      return `expected an identity of trust domain "${workload.trustDomain}", found ${found}`;
    },
    onRequest: (request) => acceptRequest(context, pod, request),
    onHandshakeFailed: ({ peer, local, reason }) => {
      context.counts.handshakesFailed++;
      const failure = { reporter: "destination", client: peer, server: local } as const;
      context.connections.failedEarly({ ...failure, pod: pod.uid, reason });
    },
  };
}

async function materialOf(context: ProxyContext, pod: PodPlace): Promise<TlsMaterial> {
  const workload =
    context.state.localWorkload(pod) ?? (await context.state.waitForLocalWorkload(pod));
  if (workload === undefined) {
    const attempt = `Cannot show a certificate for pod "${pod.namespace}/${pod.name}"`;
    throw new MeshError("CERTIFICATE_UNAVAILABLE", `${attempt}: discovery does not know it`);
  }
  const identity = identityOf(workload);
  const held = context.certificates.current(identity);
  return (held ?? (await context.certificates.obtain(identity))).material;
}

/** The peer's identity: the first of those in its certificate that is of our own trust domain. */
function trustedIdentity(uris: readonly string[], workload: Workload): SpiffeId | undefined {
  return uris
    .map(spiffeIdOf)
    .filter((id) => id !== undefined)
    .find((id) => partsOfSpiffeId(id).trustDomain === workload.trustDomain);
}

/** A connection on its way to the application of a pod. */
interface Arriving {
  readonly pod: PodPlace;
  readonly downstream: PlainConnection | TunnelRequest;
  readonly workload: Workload;
  readonly connection: Connection;
  readonly facts: ConnectionFacts;
  /** With an HTTP status, where there is a tunnel to send it in. */
  readonly refuse: (status: number) => void;
}

/** Takes one CONNECT. Never throws. */
function acceptRequest(context: ProxyContext, pod: PodPlace, request: TunnelRequest): void {
  serveRequest(context, pod, request).catch((error) => {
    if (!(error instanceof MeshError)) context.log.error({ err: error }, "inbound failed");
    refuseRequest(context, pod, request, 503, reasonOf(error));
  });
}

async function serveRequest(
  context: ProxyContext,
  pod: PodPlace,
  request: TunnelRequest,
): Promise<void> {
  const sinceMs = context.timers.nowMs();
  const refuse = (status: number, reason: string) =>
    refuseRequest(context, pod, request, status, reason);
  if (request.method !== "CONNECT") return refuse(400, `method is "${request.method}"`);
  const authority = parseAuthority(request.authority);
  if (authority === undefined) return refuse(400, `authority is "${request.authority}"`);
  const workload =
    context.state.localWorkload(pod) ?? (await context.state.waitForLocalWorkload(pod));
  if (workload === undefined) return refuse(503, "discovery does not know this workload");
  const localIp = request.local.ip;
  const target = resolveTunnelDestination(context.state.index, workload, localIp, authority);
  if (target.kind === "refused") return refuse(target.status, target.reason);
  if (workload.applicationTunnel?.protocol === "proxy") {
    return refuse(503, "the PROXY protocol is not supported yet");
  }
  const connection: Connection = {
    sourceIdentity: trustedIdentity(request.peerUris, workload),
    sourceIp: request.peer.ip,
    destinationIp: localIp,
    destinationPort: target.port,
  };
  const host = forwardedHost(request.headers.get("forwarded"));
  const named = host && context.state.index.serviceNamed(host, workload.namespace);
  const arriving: Arriving = {
    pod,
    downstream: request,
    workload,
    connection,
    facts: {
      ...commonFacts(context, pod, workload, connection, request),
      dialled: authority.kind === "address" ? authority.address : undefined,
      server: request.local,
      tunnelled: request.authority,
      sinceMs,
      source: sourceOfTunnel(context, request),
      service: named || target.service || guessService(context, workload, target.port),
      security: "mutual_tls",
    },
    refuse: (status) => request.refuse(status),
  };
  request.responseHeaders = new Map([["baggage", baggageOf(workload)]]);
  await admit(context, arriving);
}

/** Takes a connection that came as plain TCP, to whatever port. Never throws. */
export function acceptPlaintext(
  context: ProxyContext,
  pod: PodPlace,
  connection: PlainConnection,
): void {
  servePlaintext(context, pod, connection).catch((error) => {
    if (!(error instanceof MeshError)) context.log.error({ err: error }, "inbound failed");
    refusePlaintext(context, pod, connection, reasonOf(error));
  });
}

async function servePlaintext(
  context: ProxyContext,
  pod: PodPlace,
  downstream: PlainConnection,
): Promise<void> {
  const sinceMs = context.timers.nowMs();
  const { peer, local } = downstream;
  const refuse = (reason: string) => refusePlaintext(context, pod, downstream, reason);
  if (peer.ip === local.ip) return refuse("the pod's own connection came back to it");
  if (isLoopback(local.ip) && !pod.addresses.includes(local.ip)) {
    // Capture brings no such connection: a process of the pod has dialled this very listener.
    return refuse("loopback is not reached through the mesh");
  }
  if (isProxyPort(local.port)) return refuse(`port ${local.port} is the mesh's own`);
  const workload =
    context.state.localWorkload(pod) ?? (await context.state.waitForLocalWorkload(pod));
  if (workload === undefined) return refuse("discovery does not know this workload");
  const connection: Connection = {
    sourceIdentity: undefined,
    sourceIp: peer.ip,
    destinationIp: local.ip,
    destinationPort: local.port,
  };
  const arriving: Arriving = {
    pod,
    downstream,
    workload,
    connection,
    facts: {
      ...commonFacts(context, pod, workload, connection, downstream),
      dialled: local,
      server: local,
      tunnelled: undefined,
      sinceMs,
      source: context.state.index.workloadAt(context.state.network, peer.ip),
      service: guessService(context, workload, local.port),
      security: "unknown",
    },
    refuse: () => downstream.refuse(),
  };
  await admit(context, arriving);
}

/** Asks policy, connects to the application, and watches what was let in. */
async function admit(context: ProxyContext, arriving: Arriving): Promise<void> {
  const { pod, downstream, workload, connection, facts, refuse } = arriving;
  const decision = await context.state.decide(pod, workload, connection);
  if (decision.verdict === "deny") {
    context.connections.failed(facts, describeDenial(decision));
    return refuse(401);
  }
  const target: SocketAddress = { ip: connection.destinationIp, port: connection.destinationPort };
  const source = isIpv4(target.ip) ? { bind: SOURCE_IPV4 } : {};
  const dial = dialFrom(pod, target, { ...source, showClient: downstream.peer });
  const result = await downstream.connect({ kind: "tcp", dial });
  if (result.kind === "failed") {
    context.connections.failed(facts, failureAtApplication(target, result.failure));
    return refuse(503);
  }
  const verdictOf = context.live.watch(pod, workload, connection, result.relay);
  context.connections.opened(facts, result.relay, verdictOf);
}

function failureAtApplication(target: SocketAddress, failure: ConnectFailure) {
  const reason = `application at ${formatSocketAddress(target)}: ${failure.reason}`;
  return { flags: flagsOf(failure), reason };
}

function commonFacts(
  context: ProxyContext,
  pod: PodPlace,
  workload: Workload,
  { sourceIdentity }: Connection,
  { peer }: { readonly peer: SocketAddress },
) {
  const certificate = context.certificates.current(identityOf(workload));
  return {
    reporter: "destination",
    pod: pod.uid,
    client: peer,
    sourceIdentity,
    destination: workload,
    destinationIdentity: sourceIdentity && certificate?.identity,
  } as const;
}

/** By address in our own network; a peer of another network has only what it says of itself. */
function sourceOfTunnel(
  { state }: ProxyContext,
  request: TunnelRequest,
): (PartyFacts & { readonly name?: string }) | undefined {
  const network = request.headers.get("x-forwarded-network");
  const isElsewhere = network !== undefined && network !== state.network;
  const found = isElsewhere ? undefined : state.index.workloadAt(state.network, request.peer.ip);
  if (found) return found;
  const header = request.headers.get("baggage");
  if (header === undefined) return undefined;
  const { region, zone, ...rest } = parseBaggage(header);
  return { ...rest, locality: { region, zone } };
}

/** The service whose endpoint the workload is on this port: nobody says which one was meant. */
export function guessService(
  { state }: Pick<ProxyContext, "state">,
  workload: Workload,
  port: number,
): Service | undefined {
  const candidates = [...workload.services]
    .filter(([, ports]) => [...ports.values()].includes(port))
    .map(([key]) => key)
    .toSorted();
  const [first] = candidates;
  return first && state.index.services.get(first);
}

function refuseRequest(
  context: ProxyContext,
  pod: PodPlace,
  request: TunnelRequest,
  status: number,
  reason: string,
): void {
  context.connections.failedEarly({
    reporter: "destination",
    client: request.peer,
    server: request.local,
    pod: pod.uid,
    reason: `${status}: ${reason}`,
  });
  request.refuse(status);
}

function refusePlaintext(
  context: ProxyContext,
  pod: PodPlace,
  connection: PlainConnection,
  reason: string,
): void {
  const { peer: client, local: server } = connection;
  const failure = { reporter: "destination", client, server, reason } as const;
  context.connections.failedEarly({ ...failure, pod: pod.uid });
  connection.refuse();
}
