import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { describe, it } from "node:test";
import { parseSpiffeId } from "#core/spiffe-id.ts";
import { FakeTimers } from "../test/support/fake-timers.ts";
import { service, workload } from "../test/support/mesh-builders.ts";
import { Loggers, parseLogLevels } from "./log.ts";
import { createMetrics } from "./metrics.ts";
import { ConnectionLog, flagsOf } from "./proxy/connection-log.ts";
import { TRAFFIC_LABELS, TrafficTable, trafficLabels } from "./proxy/traffic.ts";

const facts = {
  reporter: "source",
  source: workload({ name: "cart", namespace: "shop" }),
  sourceIdentity: parseSpiffeId("spiffe://cluster.local/ns/shop/sa/cart"),
  destination: undefined,
  destinationIdentity: undefined,
  service: service("store", "10.96.0.5", { namespace: "shop" }),
  security: "mutual_tls",
} as const;

function createSources() {
  const traffic = new TrafficTable();
  const timers = new FakeTimers();
  const loggers = new Loggers(
    { format: "json", levels: parseLogLevels("off") },
    { write: () => undefined },
  );
  const connections = new ConnectionLog(loggers.for("access"), traffic, timers);
  const metrics = createMetrics({
    traffic,
    connections,
    counts: { notCaptured: 1, endpointRetries: 2, handshakesFailed: 3, closedByPolicy: 4 },
    pods: () => ({ up: 3, pending: 1 }),
    engineLoads: () => [
      { listeners: 6, inboundSessions: 1, outboundSessions: 2, relays: 3 },
      { listeners: 6, inboundSessions: 1, outboundSessions: 2, relays: 3 },
    ],
    engineKind: "node",
    rung: "ebpf",
    datapathCounters: () => ({ captured: 7 }),
    dnsCounters: () => ({ answered: 8 }),
    flows: () => ({ events: { directOut: 9 }, retransmits: { agentOut: 2 }, lost: { flows: 3 } }),
    unknownPolicies: () => 1,
    certificates: () => [],
    version: "1.2.3",
  });
  return { traffic, connections, metrics };
}

/** `name{labels} value` lines of one metric. */
const linesOf = (text: string, name: string) =>
  text.split("\n").filter((line) => line.startsWith(`${name}{`) || line.startsWith(`${name} `));

const dnsLabels = (service: string) =>
  'request_query_type="AAAA",request_protocol="udp",' +
  `source_canonical_service="${service}",source_canonical_revision="unknown"`;

describe("metrics", () => {
  it("name traffic as Istio does, labels in its order, unknown where nothing is known", async () => {
    const { traffic, metrics } = createSources();
    traffic.row(trafficLabels(facts, "-")).opened++;
    const [line = ""] = linesOf(await metrics.text(), "istio_tcp_connections_opened_total");
    const labels = [...line.matchAll(/(\w+)="([^"]*)"/g)].map(([, name, value]) => [name, value]);
    assert.deepEqual(
      labels.map(([name]) => name),
      TRAFFIC_LABELS,
    );
    const values = Object.fromEntries(labels);
    assert.equal(values.source_principal, "spiffe://cluster.local/ns/shop/sa/cart");
    assert.equal(values.destination_service, "store.shop.svc.cluster.local");
    assert.equal(values.destination_workload, "unknown");
    assert.equal(values.request_protocol, "tcp");
    assert.equal(values.connection_security_policy, "mutual_tls");
    assert.ok(line.endsWith(" 1"));
  });

  it("count the bytes of a connection that has not ended", async () => {
    const { traffic, metrics } = createSources();
    const row = traffic.row(trafficLabels(facts, "-"));
    row.opened++;
    const bytes = { fromDownstream: 10, toDownstream: 20 };
    const live = traffic.follow(row, () => bytes);
    const sent = async () => linesOf(await metrics.text(), "istio_tcp_sent_bytes_total")[0];
    assert.ok((await sent())?.endsWith(" 20"));
    bytes.toDownstream = 50;
    assert.ok((await sent())?.endsWith(" 50"));
    live.end({ fromDownstream: 10, toDownstream: 60 });
    assert.ok((await sent())?.endsWith(" 60"));
  });

  it("keep the names of Istio's other metrics", async () => {
    const { metrics } = createSources();
    metrics.xdsMessage("type.googleapis.com/istio.workload.Address", 100);
    metrics.xdsTerminated("Reconnect");
    metrics.podStarted();
    const dns = { queryType: "AAAA", protocol: "udp", client: undefined } as const;
    metrics.dnsRequest(dns);
    metrics.dnsUpstreamRequest({ ...dns, client: facts.source }, false, 250);
    const text = await metrics.text();
    for (const line of [
      'istio_build{component="aquifer-agent",tag="1.2.3"} 1',
      "workload_manager_active_proxy_count 3",
      "workload_manager_pending_proxy_count 1",
      "workload_manager_proxies_started_total 1",
      "workload_manager_proxies_stopped_total 0",
      'istio_xds_connection_terminations_total{reason="Reconnect"} 1',
      'istio_xds_message_total{url="type.googleapis.com/istio.workload.Address"} 1',
      'istio_xds_message_bytes_total{url="type.googleapis.com/istio.workload.Address"} 100',
      'istio_tcp_sockets_open{reporter="source"} 0',
      'aquifer_tunnel_engine{kind="node"} 1',
      'aquifer_datapath_events_total{event="captured"} 7',
      'aquifer_datapath_dns_events_total{event="answered"} 8',
      `istio_dns_requests_total{${dnsLabels("unknown")}} 1`,
      `istio_dns_upstream_requests_total{${dnsLabels("cart")}} 1`,
      `istio_dns_upstream_failures_total{${dnsLabels("cart")}} 1`,
      `istio_dns_upstream_request_duration_seconds_bucket{le="0.1",${dnsLabels("cart")}} 0`,
      `istio_dns_upstream_request_duration_seconds_bucket{le="1",${dnsLabels("cart")}} 1`,
      "aquifer_outbound_sessions 4",
      "aquifer_policies_unknown 1",
      "aquifer_closed_by_policy_total 4",
    ]) {
      assert.ok(text.split("\n").includes(line), line);
    }
    assert.match(text, /^process_open_fds \d+$/m);
    assert.match(text, /^process_max_fds \d+$/m);
  });

  it("satisfy promtool", async () => {
    const { traffic, metrics } = createSources();
    traffic.row(trafficLabels(facts, "-")).opened++;
    metrics.xdsMessage("type.googleapis.com/istio.workload.Address", 100);
    const check = spawnSync("promtool", ["check", "metrics"], { input: await metrics.text() });
    assert.equal(check.error, undefined, "promtool comes with npm run setup");
    assert.equal(check.status, 0, String(check.stderr) + String(check.stdout));
  });

  it("stop making rows before they fill memory", () => {
    const traffic = new TrafficTable();
    for (let number = 0; number < 20_100; number++) {
      const source = workload({ name: `w${number}` });
      traffic.row(trafficLabels({ ...facts, source }, "-")).opened++;
    }
    const rows = traffic.rows();
    assert.equal(rows.length, 20_001);
    assert.equal(rows.at(-1)?.opened, 100);
    assert.equal(rows.at(-1)?.labels.source_workload, "unknown");
  });
});

describe("flagsOf()", () => {
  it("tells Istio's flags apart", () => {
    const flags = (["tls", "identity", "http2", "refused", "timedOut"] as const).map((kind) =>
      flagsOf({ kind, reason: "" }),
    );
    const expected = [
      "TLS_FAILURE",
      "IDENTITY_ERROR",
      "H2_HANDSHAKE_FAILURE",
      "CONNECT",
      "CONNECT",
    ];
    assert.deepEqual(flags, expected);
    assert.equal(flagsOf({ kind: "status", reason: "", status: 401 }), "DENY");
    assert.equal(flagsOf({ kind: "status", reason: "", status: 503 }), "CONNECT");
  });
});
