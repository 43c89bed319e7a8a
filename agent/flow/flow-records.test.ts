import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { FakeTimers } from "../../test/support/fake-timers.ts";
import { parseIp, service, workload } from "../../test/support/mesh-builders.ts";
import type { DenyEvent, FlowEvent } from "../kernel/flow-layout.ts";
import { Loggers, parseLogLevels } from "../log.ts";
import { ConnectionLog } from "../proxy/connection-log.ts";
import { MeshState } from "../proxy/mesh-state.ts";
import { TrafficTable } from "../proxy/traffic.ts";
import { FlowRecords } from "./flow-records.ts";

const CART = workload({ name: "cart", namespace: "shop", addresses: [parseIp("10.0.0.1")] });
const STORE = workload({ name: "store", namespace: "shop", addresses: [parseIp("10.0.0.2")] });
const STORE_SERVICE = service("store", "10.96.0.1");

const CLOSED: FlowEvent = {
  kind: "closed",
  role: "directOut",
  atNs: 0n,
  netns: 1n,
  socket: 77n,
  sentBytes: 15,
  receivedBytes: 7,
  durationMs: 12.4,
  source: { ip: parseIp("10.0.0.1"), port: 40_000 },
  destination: { ip: parseIp("10.0.0.2"), port: 80 },
  dialled: { ip: parseIp("10.96.0.1"), port: 80 },
  sourceId: 1,
  destinationId: 2,
  rttUs: 321,
  retransmits: 2,
  wasOpen: true,
  reset: false,
};
const OPENED: FlowEvent = { ...CLOSED, kind: "opened", sentBytes: 0, receivedBytes: 0 };
const DENIED: DenyEvent = {
  atNs: 0n,
  netns: 1n,
  source: { ip: parseIp("10.0.0.1"), port: 0 },
  destination: { ip: parseIp("10.0.0.2"), port: 81 },
  sourceId: 1,
  destinationId: 2,
  rule: 7,
  generation: 3,
  outcome: "denied",
};

function createRecords(policyOf: (rule: number) => string | undefined = () => undefined) {
  const timers = new FakeTimers();
  const state = new MeshState({ network: "", clusterId: "Kubernetes", timers });
  state.apply({
    workloads: { changed: [CART, STORE], removed: [] },
    services: { changed: [STORE_SERVICE], removed: [] },
  });
  const lines: Record<string, unknown>[] = [];
  const loggers = new Loggers(
    { format: "json", levels: parseLogLevels("info") },
    { write: (line: string) => lines.push(JSON.parse(line)) },
  );
  const traffic = new TrafficTable();
  const connections = new ConnectionLog(loggers.for("access"), traffic, timers);
  const pods = new Map([
    [1n, { ...CART, uid: "uid-cart" }],
    [2n, { ...STORE, uid: "uid-store" }],
  ]);
  const records = new FlowRecords({
    ...{ state, connections, timers, policyOf },
    podOf: (netns) => pods.get(netns),
  });
  return { records, traffic, connections, lines };
}

describe("FlowRecords", () => {
  it("tells of a direct connection as of a tunnelled one, and what the kernel measured", () => {
    const { records, traffic, connections, lines } = createRecords();
    records.takeFlow(OPENED);
    assert.equal(connections.open.size, 1);
    records.takeFlow(CLOSED);
    assert.equal(connections.open.size, 0);
    const [row] = traffic.rows();
    assert.deepEqual(
      [row?.opened, row?.closed, row?.failed, row?.sentBytes, row?.receivedBytes],
      [1, 1, 0, 7, 15],
    );
    assert.equal(row?.labels.reporter, "source");
    assert.equal(row?.labels.connection_security_policy, "attested");
    assert.equal(row?.labels.destination_service, STORE_SERVICE.hostname);
    assert.match(row?.labels.source_principal ?? "", /^spiffe:/);
    assert.match(row?.labels.destination_principal ?? "", /^spiffe:/);
    const [line] = lines;
    assert.equal(line?.["src.workload"], "cart");
    assert.equal(line?.["dst.workload"], "store");
    assert.equal(line?.["bytes_sent"], 15);
    assert.equal(line?.["duration"], "12ms");
    assert.equal(line?.["rtt"], "0.321ms");
    assert.equal(line?.["retransmits"], 2);
  });

  it("has the destination report the same bytes from its own side", () => {
    const { records, traffic } = createRecords();
    const arrived = { role: "directIn", netns: 2n, sentBytes: 7, receivedBytes: 15 } as const;
    records.takeFlow({ ...CLOSED, ...arrived, dialled: undefined });
    const [row] = traffic.rows();
    assert.equal(row?.labels.reporter, "destination");
    assert.deepEqual([row?.opened, row?.sentBytes, row?.receivedBytes], [1, 7, 15]);
  });

  it("tells of a connection whose beginning it does not know, and of one that never opened", () => {
    const { records, traffic, lines } = createRecords();
    records.takeFlow(CLOSED);
    records.takeFlow({ ...CLOSED, wasOpen: false, sentBytes: 0, receivedBytes: 0 });
    const flags = traffic.rows().map(({ labels, failed }) => [labels.response_flags, failed]);
    assert.deepEqual(flags, [
      ["-", 0],
      ["CONNECT", 1],
    ]);
    assert.match(String(lines[1]?.["error"]), /did not accept/);
  });

  it("names the policy that denied, or its number where the name is not known", () => {
    const named = createRecords((rule) => (rule === 7 ? "shop/deny-81" : undefined));
    named.records.takeDeny(DENIED);
    assert.equal(named.lines[0]?.["error"], 'denied by policy "shop/deny-81"');
    assert.equal(named.lines[0]?.["policy"], "shop/deny-81");
    const row = named.traffic.rows().find(({ labels }) => labels.response_flags === "DENY");
    assert.deepEqual([row?.failed, row?.labels.reporter], [1, "source"]);
    const unnamed = createRecords();
    unnamed.records.takeDeny({ ...DENIED, netns: 2n, outcome: "inDenied" });
    assert.equal(unnamed.lines[0]?.["error"], "denied by policy rule 7 of table 3");
    assert.equal(unnamed.lines[0]?.["direction"], "inbound");
  });

  it("says in words why a connection of a pod that is not ready was refused", () => {
    const { records, connections, lines } = createRecords();
    records.takeDeny({ ...DENIED, outcome: "blocked" });
    assert.equal(connections.early.source, 1);
    assert.match(String(lines[0]?.["error"]), /not ready/);
  });

  it("counts what it cannot tell of, and the legs that others tell of", () => {
    const { records, lines } = createRecords();
    records.takeFlow({ ...CLOSED, netns: 9n });
    records.takeDeny({ ...DENIED, netns: 9n });
    records.takeFlow({ ...CLOSED, role: "agentOut" });
    const { events, retransmits, unattributed } = records.counts;
    assert.deepEqual(events, { directOut: 1, denied: 1, agentOut: 1 });
    assert.deepEqual(retransmits, { directOut: 2, agentOut: 2 });
    assert.equal(unattributed, 2);
    assert.equal(lines.length, 0);
  });
});
