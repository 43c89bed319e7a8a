/** Connections that leave a pod: finds out where each was going, and takes it there. */
import { MeshError, reasonOf } from "#core/errors.ts";
import { formatSocketAddress, type SocketAddress } from "#core/ip.ts";
import { HBONE_PORT, type OutboundRoute, routeOutbound } from "#core/service/outbound.ts";
import { identityOf, type Workload, type WorkloadUid } from "#core/service/workload.ts";
import { type SpiffeId, spiffeIdOf } from "#core/spiffe-id.ts";
import type {
  ConnectFailure,
  ConnectResult,
  PlainConnection,
  SessionTarget,
  Upstream,
} from "#wire/hbone/engine.ts";
import type { HeldCertificate } from "../identity/certificate-store.ts";
import { type ConnectionFacts, flagsOf } from "./connection-log.ts";
import { dialFrom, type PodPlace, type ProxyContext } from "./context.ts";
import { baggageOf, forwardedHeader, newTraceparent } from "./headers.ts";

/** One endpoint, and two more where it cannot be connected to. */
const ATTEMPTS_MAX = 3;

type Reachable = Exclude<OutboundRoute, { kind: "refused" }>;

/** One captured connection, from its acceptance to its connection. */
interface Leaving {
  readonly connection: PlainConnection;
  readonly pod: PodPlace;
  readonly destination: SocketAddress;
  readonly client: Workload;
  readonly sinceMs: number;
}

/** Takes a connection that a pod's outbound listener has accepted. Never throws. */
export function acceptOutbound(
  context: ProxyContext,
  pod: PodPlace,
  connection: PlainConnection,
): void {
  serve(context, pod, connection).catch((error) => {
    if (!(error instanceof MeshError)) context.log.error({ err: error }, "outbound failed");
    refuseEarly(context, pod, connection, undefined, reasonOf(error));
  });
}

async function serve(
  context: ProxyContext,
  pod: PodPlace,
  connection: PlainConnection,
): Promise<void> {
  const sinceMs = context.timers.nowMs();
  const destination = pod.originalDestination(connection.fd);
  if (destination === undefined) {
    context.counts.notCaptured++;
    const reason = "not captured: somebody dialled the listener itself";
    return refuseEarly(context, pod, connection, undefined, reason);
  }
  const dns = pod.dnsOverTcp(destination);
  if (dns !== undefined) return connectToDns(context, pod, connection, dns);
  const client =
    context.state.localWorkload(pod) ?? (await context.state.waitForLocalWorkload(pod));
  if (client === undefined) {
    const reason = "discovery does not know the source workload";
    return refuseEarly(context, pod, connection, destination, reason);
  }
  await connectSomewhere(context, { connection, pod, destination, client, sinceMs });
}

/** The agent's own server is one hop away, within the pod. */
async function connectToDns(
  context: ProxyContext,
  pod: PodPlace,
  connection: PlainConnection,
  address: SocketAddress,
): Promise<void> {
  const result = await connection.connect({ kind: "tcp", dial: dialFrom(pod, address) });
  if (result.kind === "connected") return;
  refuseEarly(context, pod, connection, address, result.failure.reason);
}

async function connectSomewhere(context: ProxyContext, leaving: Leaving): Promise<void> {
  const { connection, pod, destination, client } = leaving;
  const tried = new Set<WorkloadUid>();
  let report = (): void => undefined;
  for (let attempt = 1; attempt <= ATTEMPTS_MAX; attempt++) {
    const route = routeOutbound(context.state.index, {
      client,
      destination,
      tried,
      outstanding: (uid) => context.outstanding.of(uid),
      random: context.random,
    });
    if (route.kind === "refused") {
      if (attempt > 1) break;
      return refuseEarly(context, pod, connection, destination, REFUSALS[route.because]);
    }
    if (attempt > 1) context.counts.endpointRetries++;
    const failure = await connectTo(context, leaving, route);
    if (failure === undefined) return;
    report = () => reportFailure(context, leaving, route, failure);
    if (!mayTryAnother(route, failure)) break;
    tried.add(route.workload.uid);
  }
  report();
  connection.refuse();
}

const REFUSALS = {
  proxyPort: "the destination is one of the mesh's own ports",
  noSuchPort: "the service has no such port",
  noEndpoint: "no healthy endpoint",
  unknownWaypoint: "the waypoint is not known, or has no healthy endpoint",
  otherNetwork: "the destination is in another network, which is not supported yet",
  nameOnly: "the endpoint is a host name, which is not supported yet",
} as const;

/** @returns why it failed, or undefined where the connection is on its way */
async function connectTo(
  context: ProxyContext,
  leaving: Leaving,
  route: Reachable,
): Promise<ConnectFailure | undefined> {
  const upstream = await upstreamOf(context, leaving, route);
  if (upstream.kind === "failed") return upstream.failure;
  const end =
    route.kind === "passthrough" ? undefined : context.outstanding.begin(route.workload.uid);
  const result = await leaving.connection.connect(upstream);
  if (result.kind === "failed") {
    end?.();
    return result.failure;
  }
  context.connections.opened(factsOf(leaving, route, result), result.relay);
  void result.relay.ended.then(() => end?.());
  return undefined;
}

async function upstreamOf(
  context: ProxyContext,
  { pod, client, connection }: Leaving,
  route: Reachable,
): Promise<Upstream | { readonly kind: "failed"; readonly failure: ConnectFailure }> {
  if (route.kind !== "tunnel") return { kind: "tcp", dial: dialFrom(pod, route.address) };
  const identity = identityOf(client);
  const held = await certificateFor(context, identity);
  if (held instanceof MeshError) {
    return { kind: "failed", failure: { kind: "tls", reason: reasonOf(held) } };
  }
  return {
    kind: "tunnel",
    session: sessionTo(pod, route, held),
    request: {
      authority: route.authority,
      headers: new Map([
        ["baggage", baggageOf(client)],
        ["forwarded", forwardedHeader(connection.peer, route.service?.hostname)],
        ["traceparent", newTraceparent()],
      ]),
    },
  };
}

async function certificateFor(
  { certificates }: ProxyContext,
  identity: SpiffeId,
): Promise<HeldCertificate | MeshError> {
  try {
    return certificates.current(identity) ?? (await certificates.obtain(identity));
  } catch (error) {
    if (error instanceof MeshError) return error;
    throw error;
  }
}

/** The key names everything that a session depends on: with any of it different, it is another. */
function sessionTo(
  pod: PodPlace,
  route: Reachable & { kind: "tunnel" },
  { identity, issued, material }: HeldCertificate,
): SessionTarget {
  const dial = dialFrom(pod, route.address);
  const family = route.address.ip.includes(":") ? "ipv6" : "ipv4";
  return {
    key: [
      identity,
      route.identities.join(),
      formatSocketAddress(route.address),
      `${pod.instance}/${family}`,
      issued.serialNumber,
    ].join("|"),
    dial,
    material,
    refusePeer: (uris) => {
      if (uris.some((uri) => route.identities.some((expected) => expected === uri))) {
        return undefined;
      }
      return `expected ${route.identities.join(" or ")}, found ${uris.join(", ") || "no identity"}`;
    },
  };
}

/** Only before a byte was relayed, and only where the service has other endpoints. */
function mayTryAnother(
  route: Reachable,
  failure: ConnectFailure,
): route is Exclude<Reachable, { kind: "passthrough" }> {
  if (route.kind === "passthrough" || route.service === undefined) return false;
  switch (failure.kind) {
    case "refused":
    case "unreachable":
    case "timedOut":
    case "tls":
    case "identity":
    case "http2":
    case "draining":
      return true;
    case "status":
    case "downstreamClosed":
      return false;
  }
}

function reportFailure(
  context: ProxyContext,
  leaving: Leaving,
  route: Reachable,
  failure: ConnectFailure,
): void {
  const isTunnelTimeout = failure.kind === "timedOut" && route.kind === "tunnel";
  const hint = `; does a NetworkPolicy block port ${HBONE_PORT}?`;
  context.connections.failed(factsOf(leaving, route, undefined), {
    flags: isTunnelTimeout ? "NETWORK_POLICY" : flagsOf(failure),
    reason: isTunnelTimeout ? `${failure.reason}${hint}` : failure.reason,
  });
}

function factsOf(
  { connection, pod, client, destination, sinceMs }: Leaving,
  route: Reachable,
  result: (ConnectResult & { kind: "connected" }) | undefined,
): ConnectionFacts {
  const isTunnel = route.kind === "tunnel";
  const found = result?.peerUris.map(spiffeIdOf).find((id) => id !== undefined);
  return {
    reporter: "source",
    pod: pod.uid,
    client: connection.peer,
    dialled: destination,
    server: route.address,
    tunnelled: isTunnel ? route.authority : undefined,
    sinceMs,
    source: client,
    sourceIdentity: identityOf(client),
    destination: route.kind === "passthrough" ? undefined : route.workload,
    destinationIdentity: isTunnel ? (found ?? route.identities.at(-1)) : undefined,
    service: route.service,
    security: isTunnel ? "mutual_tls" : "unknown",
  };
}

function refuseEarly(
  context: ProxyContext,
  pod: PodPlace,
  connection: PlainConnection,
  server: SocketAddress | undefined,
  reason: string,
): void {
  const client = connection.peer;
  context.connections.failedEarly({ reporter: "source", client, server, pod: pod.uid, reason });
  connection.refuse();
}
