/**
 * What is told about each connection, to people (access log) and to Prometheus.
 *
 * @see https://istio.io/latest/docs/ambient/usage/troubleshoot-ztunnel/ for the lines' form
 */
import { formatSocketAddress, type SocketAddress } from "#core/ip.ts";
import type { ConnectFailure, Relay, RelayBytes, RelayReport } from "#wire/hbone/engine.ts";
import type { Logger } from "../log.ts";
import type { Timers } from "../timers.ts";
import {
  type LiveTraffic,
  type PartyFacts,
  type ResponseFlags,
  type TrafficFacts,
  type TrafficRow,
  type TrafficTable,
  trafficLabels,
} from "./traffic.ts";

export interface ConnectionFacts extends TrafficFacts {
  /** Uid of the pod of this node that it belongs to. */
  readonly pod: string;
  readonly client: SocketAddress;
  /** What the client dialled; of a tunnel's stream what the CONNECT named. */
  readonly dialled: SocketAddress | undefined;
  /** Of the socket towards the destination, or of the one that a tunnel came in by. */
  readonly server: SocketAddress | undefined;
  /** The authority of the CONNECT, where there is a tunnel. */
  readonly tunnelled: string | undefined;
  /** When it was accepted, for the duration. */
  readonly sinceMs: number;
}

/** What becomes of a connection that nothing can be told of but its addresses. */
export interface EarlyFailure {
  readonly reporter: "source" | "destination";
  readonly client: SocketAddress;
  readonly server: SocketAddress | undefined;
  readonly pod: string;
  readonly reason: string;
}

export interface FailureFacts {
  readonly flags: ResponseFlags;
  readonly reason: string;
  /** `namespace/name` of the policy that decided, where one did. */
  readonly policy?: string;
}

/** What the kernel has measured of a connection that nobody relays. */
export interface KernelFigures {
  /** Smoothed round-trip time. */
  readonly rttUs: number;
  /** Segments sent again. */
  readonly retransmits: number;
  readonly durationMs: number;
}

/** A connection that the kernel tells of, from the moment it opened. */
export interface ToldConnection {
  readonly facts: ConnectionFacts;
  readonly row: TrafficRow;
}

export class ConnectionLog {
  readonly #log: Logger;
  readonly #traffic: TrafficTable;
  readonly #timers: Timers;
  readonly #open = new Set<ConnectionFacts>();
  readonly #early = { source: 0, destination: 0 };

  constructor(log: Logger, traffic: TrafficTable, timers: Timers) {
    this.#log = log;
    this.#traffic = traffic;
    this.#timers = timers;
  }

  /** Connections being relayed. */
  get open(): ReadonlySet<ConnectionFacts> {
    return this.#open;
  }

  /** Connections that ended before their target was known, by reporter. */
  get early(): Readonly<Record<"source" | "destination", number>> {
    return this.#early;
  }

  failedEarly(failure: EarlyFailure): void {
    const { reporter, client, server, pod, reason } = failure;
    this.#early[reporter]++;
    this.#log.warn(
      {
        "src.addr": formatSocketAddress(client),
        ...(server && { "dst.addr": formatSocketAddress(server) }),
        direction: directionOf(reporter),
        pod,
        error: reason,
      },
      "connection failed",
    );
  }

  /** A connection whose target is known and was not reached. */
  failed(facts: ConnectionFacts, failure: FailureFacts): void {
    const row = this.#traffic.row(trafficLabels(facts, "-"));
    row.opened++;
    const ended = this.#traffic.row(trafficLabels(facts, failure.flags));
    ended.closed++;
    ended.failed++;
    this.#complete(facts, NO_BYTES, failure);
  }

  /** A connection that is being relayed. `verdictOf` says why it was aborted, if we did it. */
  opened(
    facts: ConnectionFacts,
    relay: Relay,
    verdictOf: () => FailureFacts | undefined = () => undefined,
  ): void {
    const row = this.#traffic.row(trafficLabels(facts, "-"));
    row.opened++;
    this.#open.add(facts);
    if (this.#log.isLevelEnabled("debug")) this.#log.debug(fieldsOf(facts), "connection opened");
    const live = this.#traffic.follow(row, () => relay.bytes());
    void relay.ended.then((report) => this.#ended(facts, live, report, verdictOf()));
  }

  /** A connection that goes on without us. Whoever calls this calls `toldClosed()` later. */
  toldOpened(facts: ConnectionFacts): ToldConnection {
    const row = this.#traffic.row(trafficLabels(facts, "-"));
    row.opened++;
    this.#open.add(facts);
    if (this.#log.isLevelEnabled("debug")) this.#log.debug(fieldsOf(facts), "connection opened");
    return { facts, row };
  }

  toldClosed({ facts, row }: ToldConnection, bytes: RelayBytes, figures: KernelFigures): void {
    this.#open.delete(facts);
    row.closed++;
    row.sentBytes += bytes.toDownstream;
    row.receivedBytes += bytes.fromDownstream;
    this.#complete(facts, bytes, undefined, figures);
  }

  #ended(
    facts: ConnectionFacts,
    live: LiveTraffic,
    report: RelayReport,
    verdict: FailureFacts | undefined,
  ): void {
    live.end(report);
    this.#open.delete(facts);
    const flags = verdict?.flags ?? "-";
    const row = this.#traffic.row(trafficLabels(facts, flags));
    row.closed++;
    if (verdict) row.failed++;
    const broken = report.error === undefined ? undefined : { flags, reason: report.error };
    this.#complete(facts, report, verdict ?? broken);
  }

  #complete(
    facts: ConnectionFacts,
    bytes: Pick<RelayReport, "fromDownstream" | "toDownstream">,
    failure: FailureFacts | undefined,
    figures?: KernelFigures,
  ): void {
    const level = failure ? "error" : "info";
    if (!this.#log.isLevelEnabled(level)) return;
    // A line speaks for its own workload: what the client sent was received by a destination.
    const isSource = facts.reporter === "source";
    const durationMs = Math.round(figures?.durationMs ?? this.#timers.nowMs() - facts.sinceMs);
    this.#log[level](
      {
        ...fieldsOf(facts),
        bytes_sent: isSource ? bytes.fromDownstream : bytes.toDownstream,
        bytes_recv: isSource ? bytes.toDownstream : bytes.fromDownstream,
        duration: `${durationMs}ms`,
        ...(figures && {
          rtt: `${(figures.rttUs / 1000).toFixed(3)}ms`,
          retransmits: figures.retransmits,
        }),
        ...(failure && { error: failure.reason }),
        ...(failure?.policy !== undefined && { policy: failure.policy }),
      },
      "connection complete",
    );
  }
}

const NO_BYTES = { fromDownstream: 0, toDownstream: 0 } as const;

/** The flag of a connection that could not be made. */
export function flagsOf(failure: ConnectFailure): ResponseFlags {
  switch (failure.kind) {
    case "tls":
      return "TLS_FAILURE";
    case "identity":
      return "IDENTITY_ERROR";
    case "http2":
      return "H2_HANDSHAKE_FAILURE";
    case "status":
      return failure.status === 401 ? "DENY" : "CONNECT";
    case "refused":
    case "unreachable":
    case "timedOut":
    case "draining":
    case "downstreamClosed":
      return "CONNECT";
  }
}

function directionOf(reporter: "source" | "destination"): "inbound" | "outbound" {
  return reporter === "source" ? "outbound" : "inbound";
}

/** Fields without a value are left out, as Istio's proxies do. */
function fieldsOf(facts: ConnectionFacts): Record<string, string> {
  const { service, server, tunnelled } = facts;
  const fields: Record<string, string> = { "src.addr": formatSocketAddress(facts.client) };
  addParty(fields, "src", facts.source, facts.sourceIdentity);
  if (server) fields["dst.addr"] = formatSocketAddress(server);
  if (tunnelled) fields["dst.hbone_addr"] = tunnelled;
  if (service) fields["dst.service"] = service.hostname;
  addParty(fields, "dst", facts.destination, facts.destinationIdentity);
  fields["direction"] = directionOf(facts.reporter);
  return fields;
}

function addParty(
  fields: Record<string, string>,
  side: "src" | "dst",
  party: (PartyFacts & { readonly name?: string }) | undefined,
  identity: string | undefined,
): void {
  const name = party?.name ?? party?.workloadName;
  if (name) fields[`${side}.workload`] = name;
  if (party?.namespace) fields[`${side}.namespace`] = party.namespace;
  if (identity) fields[`${side}.identity`] = identity;
  if (party?.clusterId) fields[`${side}.cluster`] = party.clusterId;
}
