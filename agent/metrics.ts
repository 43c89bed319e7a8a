import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from "prom-client";
import type { EngineLoad } from "#wire/hbone/engine.ts";
import type { CertificateStatus } from "./identity/certificate-store.ts";
import type { ConnectionLog } from "./proxy/connection-log.ts";
import type { ProxyCounts } from "./proxy/context.ts";
import type { DnsEvents, DnsLabels } from "./proxy/dns-server.ts";
import { TRAFFIC_LABELS, type TrafficRow, type TrafficTable } from "./proxy/traffic.ts";

/** Where the numbers come from that are not counted here but read when somebody asks. */
export interface MetricsSources {
  readonly traffic: TrafficTable;
  readonly connections: ConnectionLog;
  readonly counts: ProxyCounts;
  readonly pods: () => { readonly up: number; readonly pending: number };
  readonly engineLoads: () => readonly EngineLoad[];
  readonly engineKind: string;
  readonly rung: string;
  readonly datapathCounters: () => Readonly<Record<string, number>>;
  readonly dnsCounters: () => Readonly<Record<string, number>>;
  readonly flows: () => FlowNumbers;
  readonly unknownPolicies: () => number;
  readonly certificates: () => readonly CertificateStatus[];
  readonly version: string;
}

/** Of the kernel's account of connections. */
export interface FlowNumbers {
  /** By the role of the socket, and refusals. */
  readonly events: Readonly<Record<string, number>>;
  readonly retransmits: Readonly<Record<string, number>>;
  /** By reason. */
  readonly lost: Readonly<Record<string, number>>;
}

/** Numbers that are counted where they happen. */
export interface AgentMetrics {
  xdsMessage(typeUrl: string, bytes: number): void;
  xdsTerminated(reason: string): void;
  xdsRejected(typeUrl: string): void;
  podStarted(): void;
  podStopped(): void;
  readonly dnsRequest: DnsEvents["request"];
  readonly dnsUpstreamRequest: DnsEvents["upstreamRequest"];
  /** Prometheus' text format. */
  text(): Promise<string>;
  readonly contentType: string;
}

/**
 * Names that `promtool check metrics` takes for parts of a histogram. They are Istio's and have to
 * stay; the check leaves metrics without a type alone, and so does everything that reads them.
 */
const UNTYPED = /^(# TYPE workload_manager_\w+_count) gauge$/gm;

/** Those of Node's own that break Prometheus' rules for names: gauges that end in `_total`. */
const MISNAMED = [
  "nodejs_active_handles_total",
  "nodejs_active_requests_total",
  "nodejs_active_resources_total",
];

export function createMetrics(sources: MetricsSources): AgentMetrics {
  const registry = new Registry();
  collectDefaultMetrics({ register: registry });
  for (const name of MISNAMED) registry.removeSingleMetric(name);
  addTraffic(registry, sources);
  addState(registry, sources);
  addRung(registry, sources);
  addDatapath(registry, sources);
  addFlows(registry, sources);
  const counters = addEvents(registry);
  const dns = addDns(registry);
  return {
    xdsMessage: (url, bytes) => {
      counters.messages.inc({ url });
      counters.messageBytes.inc({ url }, bytes);
    },
    xdsTerminated: (reason) => counters.terminations.inc({ reason }),
    xdsRejected: (url) => counters.rejections.inc({ url }),
    podStarted: () => counters.started.inc(),
    podStopped: () => counters.stopped.inc(),
    dnsRequest: (labels) => dns.requests.inc(dnsLabelsOf(labels)),
    dnsUpstreamRequest: (labels, isAnswered, durationMs) => {
      const values = dnsLabelsOf(labels);
      dns.upstreamRequests.inc(values);
      dns.upstreamSeconds.observe(values, durationMs / 1000);
      if (!isAnswered) dns.upstreamFailures.inc(values);
    },
    text: async () => (await registry.metrics()).replace(UNTYPED, "$1 untyped"),
    contentType: registry.contentType,
  };
}

type RowNumber = "opened" | "closed" | "failed" | "sentBytes" | "receivedBytes";

function addTraffic(registry: Registry, { traffic, connections }: MetricsSources): void {
  const add = (name: string, help: string, number: RowNumber) => {
    new Counter({
      name,
      help,
      labelNames: TRAFFIC_LABELS,
      registers: [registry],
      collect() {
        this.reset();
        const rows = traffic.rows().filter((row) => isTold(row, number));
        for (const row of rows) this.inc(row.labels, row[number]);
      },
    });
  };
  add("istio_tcp_connections_opened_total", "TCP connections opened", "opened");
  add("istio_tcp_connections_closed_total", "TCP connections closed", "closed");
  add("istio_tcp_connections_failed_total", "TCP connections that failed", "failed");
  add("istio_tcp_sent_bytes_total", "Bytes sent to clients in responses", "sentBytes");
  add("istio_tcp_received_bytes_total", "Bytes received from clients in requests", "receivedBytes");
  new Gauge({
    name: "istio_tcp_sockets_open",
    help: "TCP connections open now",
    labelNames: ["reporter"],
    registers: [registry],
    collect() {
      const open = [...connections.open];
      for (const reporter of ["source", "destination"] as const) {
        this.set({ reporter }, open.filter((facts) => facts.reporter === reporter).length);
      }
    },
  });
  addCounter(registry, {
    name: "aquifer_connections_refused_total",
    help: "Connections that ended before it was known where they go",
    label: "reporter",
    read: () => connections.early,
  });
}

/** A row with failures alone says nothing about bytes. */
function isTold(row: TrafficRow, number: RowNumber): boolean {
  return row[number] > 0 || (number.endsWith("Bytes") && row.opened > 0);
}

function addState(registry: Registry, sources: MetricsSources): void {
  const { engineKind, version } = sources;
  const build = addGauge(registry, "istio_build", "Istio component build info", [
    "component",
    "tag",
  ]);
  build.set({ component: "aquifer-agent", tag: version }, 1);
  const engine = addGauge(registry, "aquifer_tunnel_engine", "The tunnel engine in use", ["kind"]);
  engine.set({ kind: engineKind }, 1);
  const read = (name: string, help: string, value: () => number) =>
    new Gauge({
      name,
      help,
      registers: [registry],
      collect() {
        this.set(value());
      },
    });
  const sum = (field: keyof EngineLoad) => () =>
    sources.engineLoads().reduce((total, load) => total + load[field], 0);
  const withState = (state: CertificateStatus["state"]) => () =>
    sources.certificates().filter((certificate) => certificate.state === state).length;
  read("workload_manager_active_proxy_count", "Pods in the mesh", () => sources.pods().up);
  read("workload_manager_pending_proxy_count", "Pods that wait, blocked", () => {
    return sources.pods().pending;
  });
  read("aquifer_inbound_sessions", "Tunnel sessions from peers", sum("inboundSessions"));
  read("aquifer_outbound_sessions", "Tunnel sessions to peers", sum("outboundSessions"));
  read("aquifer_relays", "Connections being relayed", sum("relays"));
  read("aquifer_policies_unknown", "Policies named by pods of this node and not known", () => {
    return sources.unknownPolicies();
  });
  read("aquifer_certificates", "Identities with a valid certificate", withState("Available"));
  read("aquifer_certificates_unavailable", "Identities without a valid certificate", () => {
    return withState("Unavailable")() + withState("Initializing")();
  });
}

function addRung(registry: Registry, { rung }: MetricsSources): void {
  addGauge(registry, "aquifer_datapath_rung", "How pods are captured", ["rung"]).set({ rung }, 1);
}

function addDatapath(
  registry: Registry,
  { datapathCounters, dnsCounters, counts }: MetricsSources,
): void {
  addCounter(registry, {
    name: "aquifer_datapath_events_total",
    help: "What the kernel programs decided",
    label: "event",
    read: datapathCounters,
  });
  addCounter(registry, {
    name: "aquifer_datapath_dns_events_total",
    help: "What the kernel programs did with DNS datagrams",
    label: "event",
    read: dnsCounters,
  });
  const add = (name: string, help: string, field: keyof ProxyCounts) =>
    new Counter({
      name,
      help,
      registers: [registry],
      collect() {
        this.reset();
        this.inc(counts[field]);
      },
    });
  add("aquifer_not_captured_total", "Connections on a listener without a note", "notCaptured");
  add("aquifer_endpoint_retries_total", "Attempts at another endpoint", "endpointRetries");
  add("aquifer_handshakes_failed_total", "Inbound sessions that failed", "handshakesFailed");
  add("aquifer_closed_by_policy_total", "Connections a new policy closed", "closedByPolicy");
}

function addFlows(registry: Registry, { flows }: MetricsSources): void {
  addCounter(registry, {
    name: "aquifer_flow_events_total",
    help: "What the kernel has told of sockets and refusals",
    label: "role",
    read: () => flows().events,
  });
  addCounter(registry, {
    name: "aquifer_flow_retransmits_total",
    help: "Segments that sockets of pods and agent had to send again, once they are closed",
    label: "role",
    read: () => flows().retransmits,
  });
  addCounter(registry, {
    name: "aquifer_flow_events_lost_total",
    help: "Connections and refusals that the kernel saw and nobody is told of",
    label: "reason",
    read: () => flows().lost,
  });
}

function addEvents(registry: Registry) {
  const registers = [registry];
  const counter = (name: string, help: string, labelNames: readonly string[] = []) =>
    new Counter({ name, help, labelNames, registers });
  return {
    messages: counter("istio_xds_message_total", "Discovery responses received", ["url"]),
    messageBytes: counter("istio_xds_message_bytes_total", "Their size in bytes", ["url"]),
    terminations: counter(
      "istio_xds_connection_terminations_total",
      "Discovery streams that have ended",
      ["reason"],
    ),
    rejections: counter("aquifer_xds_rejections_total", "Resources that were refused", ["url"]),
    started: counter("workload_manager_proxies_started_total", "Pods that joined the mesh"),
    stopped: counter("workload_manager_proxies_stopped_total", "Pods that left the mesh"),
  };
}

/** As ztunnel's, labels in its order. */
const DNS_LABELS = [
  "request_query_type",
  "request_protocol",
  "source_canonical_service",
  "source_canonical_revision",
] as const;

function addDns(registry: Registry) {
  const shared = { labelNames: DNS_LABELS, registers: [registry] };
  const counter = (name: string, help: string) => new Counter({ name, help, ...shared });
  return {
    requests: counter("istio_dns_requests_total", "DNS queries of pods"),
    upstreamRequests: counter(
      "istio_dns_upstream_requests_total",
      "DNS queries passed on to a nameserver",
    ),
    upstreamFailures: counter(
      "istio_dns_upstream_failures_total",
      "DNS queries that a nameserver did not answer",
    ),
    upstreamSeconds: new Histogram({
      name: "istio_dns_upstream_request_duration_seconds",
      help: "How long nameservers took",
      buckets: [0.0005, 0.001, 0.01, 0.1, 1, 5],
      ...shared,
    }),
  };
}

function dnsLabelsOf({ queryType, protocol, client }: DnsLabels) {
  return {
    request_query_type: queryType,
    request_protocol: protocol,
    source_canonical_service: client?.canonicalName || "unknown",
    source_canonical_revision: client?.canonicalRevision || "unknown",
  };
}

function addGauge(registry: Registry, name: string, help: string, labelNames: readonly string[]) {
  return new Gauge({ name, help, labelNames, registers: [registry] });
}

interface ReadCounter {
  readonly name: string;
  readonly help: string;
  readonly label: string;
  readonly read: () => Readonly<Record<string, number>>;
}

function addCounter(registry: Registry, { name, help, label, read }: ReadCounter): void {
  new Counter({
    name,
    help,
    labelNames: [label],
    registers: [registry],
    collect() {
      this.reset();
      for (const [value, count] of Object.entries(read())) this.inc({ [label]: value }, count);
    },
  });
}
