/**
 * Counts connections and bytes per pair of workloads, under Istio's standard labels.
 *
 * @see https://istio.io/latest/docs/reference/config/metrics/#metrics for their meaning
 */
import type { Service } from "#core/service/service.ts";
import type { SpiffeId } from "#core/spiffe-id.ts";
import type { RelayBytes } from "#wire/hbone/engine.ts";

/** In the order of Istio's proxies. */
export const TRAFFIC_LABELS = [
  "reporter",
  "source_workload",
  "source_canonical_service",
  "source_canonical_revision",
  "source_workload_namespace",
  "source_principal",
  "source_app",
  "source_version",
  "source_cluster",
  "destination_service",
  "destination_service_namespace",
  "destination_service_name",
  "destination_workload",
  "destination_canonical_service",
  "destination_canonical_revision",
  "destination_workload_namespace",
  "destination_principal",
  "destination_app",
  "destination_version",
  "destination_cluster",
  "request_protocol",
  "response_flags",
  "connection_security_policy",
  "source_region",
  "source_zone",
  "destination_region",
  "destination_zone",
] as const;

export type TrafficLabels = Readonly<Record<(typeof TRAFFIC_LABELS)[number], string>>;

/** Why a connection ended badly, `-` where it did not. */
export type ResponseFlags =
  | "-"
  | "DENY"
  | "CONNECT"
  | "TLS_FAILURE"
  | "H2_HANDSHAKE_FAILURE"
  | "NETWORK_POLICY"
  | "IDENTITY_ERROR";

export type Reporter = "source" | "destination";

/** One end of a connection, as far as it is known. `Workload` has all of these. */
export interface PartyFacts {
  readonly workloadName: string;
  readonly namespace: string;
  readonly canonicalName: string;
  readonly canonicalRevision: string;
  readonly clusterId: string;
  readonly locality: { readonly region: string; readonly zone: string };
}

export interface TrafficFacts {
  readonly reporter: Reporter;
  readonly source: PartyFacts | undefined;
  readonly sourceIdentity: SpiffeId | undefined;
  readonly destination: PartyFacts | undefined;
  readonly destinationIdentity: SpiffeId | undefined;
  readonly service: Pick<Service, "hostname" | "namespace" | "name"> | undefined;
  /** `attested`: without a tunnel, between two pods of this node that the kernel vouches for. */
  readonly security: "unknown" | "mutual_tls" | "attested";
}

export interface TrafficRow {
  readonly labels: TrafficLabels;
  opened: number;
  closed: number;
  failed: number;
  /** Towards the client, for either reporter. */
  sentBytes: number;
  /** From the client, for either reporter. */
  receivedBytes: number;
}

/** Rows cost about 2 KiB each; further pairs are counted in one row without names. */
const ROWS_MAX = 20_000;

const UNKNOWN_LABELS: TrafficLabels = trafficLabels(
  {
    reporter: "source",
    source: undefined,
    sourceIdentity: undefined,
    destination: undefined,
    destinationIdentity: undefined,
    service: undefined,
    security: "unknown",
  },
  "-",
);

/** A connection whose bytes are still being counted. */
export interface LiveTraffic {
  /** The last count. */
  end(bytes: RelayBytes): void;
}

export class TrafficTable {
  readonly #rows = new Map<string, TrafficRow>();
  /** Each brings its row up to date. */
  readonly #live = new Set<() => void>();

  /** The row of these labels, made where it is missing. */
  row(labels: TrafficLabels): TrafficRow {
    const key = Object.values(labels).join("\0");
    const known = this.#rows.get(key);
    if (known) return known;
    if (this.#rows.size >= ROWS_MAX) return this.#overflow(labels);
    return this.#add(key, labels);
  }

  /** Follows a connection, so that one that lasts for days is seen before it ends. */
  follow(row: TrafficRow, bytes: () => RelayBytes): LiveTraffic {
    let counted: RelayBytes = { fromDownstream: 0, toDownstream: 0 };
    const count = (now: RelayBytes) => {
      row.sentBytes += now.toDownstream - counted.toDownstream;
      row.receivedBytes += now.fromDownstream - counted.fromDownstream;
      counted = { fromDownstream: now.fromDownstream, toDownstream: now.toDownstream };
    };
    const refresh = () => count(bytes());
    this.#live.add(refresh);
    return {
      end: (last) => {
        this.#live.delete(refresh);
        count(last);
      },
    };
  }

  /** Brings all rows up to date. */
  rows(): readonly TrafficRow[] {
    for (const refresh of this.#live) refresh();
    return [...this.#rows.values()];
  }

  #overflow({ reporter }: TrafficLabels): TrafficRow {
    const labels = { ...UNKNOWN_LABELS, reporter };
    return this.#rows.get(reporter) ?? this.#add(reporter, labels);
  }

  #add(key: string, labels: TrafficLabels): TrafficRow {
    const counts = { opened: 0, closed: 0, failed: 0, sentBytes: 0, receivedBytes: 0 };
    const row: TrafficRow = { labels, ...counts };
    this.#rows.set(key, row);
    return row;
  }
}

export function trafficLabels(facts: TrafficFacts, flags: ResponseFlags): TrafficLabels {
  const { reporter, source, sourceIdentity, destination, destinationIdentity, service } = facts;
  return {
    reporter,
    source_workload: known(source?.workloadName),
    source_canonical_service: known(source?.canonicalName),
    source_canonical_revision: known(source?.canonicalRevision),
    source_workload_namespace: known(source?.namespace),
    source_principal: known(sourceIdentity),
    source_app: known(source?.canonicalName),
    source_version: known(source?.canonicalRevision),
    source_cluster: known(source?.clusterId),
    destination_service: known(service?.hostname),
    destination_service_namespace: known(service?.namespace),
    destination_service_name: known(service?.name),
    destination_workload: known(destination?.workloadName),
    destination_canonical_service: known(destination?.canonicalName),
    destination_canonical_revision: known(destination?.canonicalRevision),
    destination_workload_namespace: known(destination?.namespace),
    destination_principal: known(destinationIdentity),
    destination_app: known(destination?.canonicalName),
    destination_version: known(destination?.canonicalRevision),
    destination_cluster: known(destination?.clusterId),
    request_protocol: "tcp",
    response_flags: flags,
    connection_security_policy: facts.security,
    source_region: known(source?.locality.region),
    source_zone: known(source?.locality.zone),
    destination_region: known(destination?.locality.region),
    destination_zone: known(destination?.locality.zone),
  };
}

function known(value: string | undefined): string {
  return value === undefined || value === "" ? "unknown" : value;
}
