import assert from "node:assert/strict";
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import type { TraceEvent, TraceNotice, TraceSummary } from "#core/trace.ts";
import { type BpfLink, BpfObject } from "#native/kernel/index.ts";
import { THIS_HOST } from "../../agent/trace/prepare.ts";
import { runTrace, type TraceRequest } from "../../agent/trace/run.ts";
import { until } from "../support/kernel.ts";
import { makeNetwork, type TestNetwork, type TestPod } from "../support/netns.ts";

/** bpftrace starts within a second, unless everything else on the machine runs too. */
const START_LIMIT_MS = 30_000;

type Wish = Pick<TraceRequest, "name" | "filter" | "slowHandshakeUs">;

interface Traced {
  readonly events: readonly TraceEvent[];
  readonly summary: TraceSummary;
}

/** Traces while `provoke` runs, and until `isEnough`. Lets no notice but the first pass. */
async function trace(
  wish: Wish,
  provoke: () => Promise<unknown>,
  isEnough: (events: readonly TraceEvent[]) => boolean,
  host = THIS_HOST,
): Promise<Traced> {
  const events: TraceEvent[] = [];
  const notices: TraceNotice[] = [];
  const controller = new AbortController();
  const finished = runTrace(
    {
      ...wish,
      durationMs: 60_000,
      signal: controller.signal,
      onEvent: (event) => events.push(event),
      onNotice: (notice) => notices.push(notice),
    },
    host,
  );
  try {
    const hasStarted = () => notices.some(({ kind }) => kind === "started");
    await Promise.race([finished, until("the trace starts", hasStarted, START_LIMIT_MS)]);
    await provoke();
    await until("everything has been seen", () => isEnough(events));
  } catch (error) {
    throw new Error(`Seen: ${JSON.stringify({ events, notices })}`, { cause: error });
  } finally {
    controller.abort();
    await finished;
  }
  assert.deepEqual(
    notices.map(({ kind }) => kind),
    ["started"],
  );
  const summary = await finished;
  assert.equal(summary.isComplete, true);
  return { events, summary };
}

const netnsOf = (pod: TestPod) => statSync(pod.netnsPath).ino;
const ownerOf = (pod: TestPod) => ({ netns: netnsOf(pod), cgroup: statSync(pod.cgroup).ino });

/** What stays the same from run to run: without times, numbers of processes and chosen ports. */
function fixed(event: TraceEvent | undefined): object | undefined {
  if (event === undefined) return undefined;
  const fields: Record<string, unknown> = { ...event };
  for (const name of ["atMs", "pid", "source"]) delete fields[name];
  return fields;
}

function segmentsOf(events: readonly TraceEvent[]): ReadonlySet<string> {
  return new Set(events.map((event) => (event.kind === "retransmit" ? event.segment : "")));
}

const DIAL = `
import socket, struct
def dial(host, port, proto=0, kind=socket.SOCK_STREAM):
    s = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, kind, proto)
    s.settimeout(20)
    try: s.connect((host, port))
    except OSError: pass
    return s
`;

/** Accepts, and waits for its end: of pod b. */
const LISTEN = `
import socket, time
l = socket.create_server(("10.1.2.2", 8080)); print("up", flush=True)
c, _ = l.accept(); c.recv(1); time.sleep(60)
`;

/** Drops what comes to the pod, or leaves it, by this rule until it is lifted. */
function drop(pod: TestPod, hook: "input" | "output", rule: string) {
  const nft = (command: string) =>
    execFileSync("nsenter", [`--net=${pod.netnsPath}`, "nft", command], { encoding: "utf8" });
  nft("add table inet trace_test");
  nft(`add chain inet trace_test it { type filter hook ${hook} priority 0; }`);
  nft(`add rule inet trace_test it ${rule} counter drop`);
  return {
    /** How many packets it has dropped. */
    count: () => Number(/counter packets (\d+)/.exec(nft("list table inet trace_test"))?.[1]),
    lift: () => nft("delete table inet trace_test"),
  };
}

describe("runTrace on this kernel", () => {
  let network: TestNetwork;
  let server: ChildProcess | undefined;
  let hook: BpfObject;
  let link: BpfLink;
  const dir = mkdtempSync(join(tmpdir(), "aquifer-test-"));

  before(() => {
    network = makeNetwork("trace");
    const source = join(import.meta.dirname, "trace_ring.bpf.c");
    const object = join(dir, "trace_ring.bpf.o");
    const headers = [
      "-idirafter",
      `/usr/include/${process.arch === "x64" ? "x86_64" : "aarch64"}-linux-gnu`,
    ];
    execFileSync("clang", ["-target", "bpf", "-O2", "-g", ...headers, "-c", source, "-o", object]);
    hook = new BpfObject(object);
    hook.load();
    link = hook.attachCgroup("test_connect4", network.a.cgroup);
  });
  after(() => {
    server?.kill("SIGKILL");
    link?.close();
    hook?.close();
    network?.close();
    rmSync(dir, { recursive: true });
  });

  it("tells who was refused a connection, by whom, and what it had asked for", async () => {
    const program = `${DIAL}
open("/proc/self/comm", "w").write('we"b"}')
dial("10.1.2.2", 7); dial("10.1.2.2", 81); dial("fd00:2::2", 81)
dial("::ffff:10.1.2.2", 81, 262); dial("10.9.9.9", 53, kind=socket.SOCK_DGRAM)
s = socket.socket(); s.setblocking(False); s.connect_ex(("10.1.2.2", 82))
import time
while s.connect_ex(("10.1.2.2", 82)) != 111: time.sleep(0.01)
`;
    execFileSync("ip", ["-n", network.a.netnsName, "route", "add", "prohibit", "10.9.9.9"]);
    const { events, summary } = await trace(
      { name: "refused-connects", filter: { netns: netnsOf(network.a) } },
      () => network.a.python(program),
      ({ length }) => length >= 6,
    );
    const by = { kind: "refused", ...ownerOf(network.a), comm: 'we"b"}', protocol: "tcp" };
    const v4 = (port: number) => ({ ip: "10.1.2.2", port });
    const v6 = { ip: "fd00:2::2", port: 81 };
    const early = { ...by, stage: "connect" };
    const late = { ...by, stage: "handshake", error: "ECONNREFUSED" };
    assert.deepEqual(events.map(fixed), [
      { ...early, error: "EPERM", asked: v4(7) },
      { ...late, asked: v4(81), destination: v4(81) },
      { ...late, asked: v6, destination: v6 },
      { ...late, asked: v4(81), destination: v4(81) },
      { ...early, error: "EACCES", protocol: "udp", asked: { ip: "10.9.9.9", port: 53 } },
      { ...late, asked: v4(82), destination: v4(82) },
    ]);
    assert.deepEqual(summary.totals, { EPERM: 1, EACCES: 1, ECONNREFUSED: 4 });
  });

  it("tells which process gave up before there was an answer", async () => {
    const dropped = drop(network.a, "output", "tcp dport 83");
    try {
      const { events } = await trace(
        { name: "refused-connects", filter: { cgroup: statSync(network.a.cgroup).ino } },
        () =>
          network.a.python(`${DIAL}s = socket.socket(); s.settimeout(0.1)
try: s.connect(("10.1.2.2", 83))
except TimeoutError: s.close()`),
        ({ length }) => length >= 1,
      );
      assert.ok(events[0]?.kind === "refused");
      assert.deepEqual([events[0].error, events[0].stage], ["none", "handshake"]);
    } finally {
      dropped.lift();
    }
  });

  it("tells both ends of a reset, and the kernel's reason", async () => {
    const program = `${DIAL}
for host in ("10.1.1.2", "fd00:1::2"):
    dial(host, 81)
    l = socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    s = dial(*l.getsockname()[:2]); c, _ = l.accept()
    s.send(b"x"); c.close()
`;
    const { events, summary } = await trace(
      { name: "resets", filter: { netns: netnsOf(network.a) } },
      () => network.a.python(program),
      ({ length }) => length >= 8,
    );
    const told = events.map((event) => {
      assert.ok(event.kind === "reset");
      const { direction, reason, state, source, cgroup } = event;
      const isOwned = cgroup === ownerOf(network.a).cgroup;
      return [direction, reason, state, source.ip, isOwned].join(" ");
    });
    const expected = ["10.1.1.2", "fd00:1::2"].flatMap((ip) => [
      `sent NO_SOCKET none ${ip} false`,
      `received  SYN_SENT ${ip} true`,
      `sent TCP_ABORT_ON_CLOSE CLOSE ${ip} true`,
      `received  ESTABLISHED ${ip} true`,
    ]);
    assert.deepEqual(told.sort(), expected.sort());
    assert.deepEqual(summary.totals, { sent: 4, received: 4 });
  });

  it("measures handshakes, and shows those that are slow", async () => {
    const program = `${DIAL}
l = socket.create_server(("10.1.1.2", 0))
for _ in range(3): dial(*l.getsockname())
dial("10.1.2.2", 81)
dial("10.1.2.2", 8080)
`;
    server = network.b.start("/usr/bin/python3", ["-c", LISTEN]);
    if (server.stdout) await once(server.stdout, "data");
    // The first SYN is lost; the kernel sends another a second later.
    const dropped = drop(network.a, "output", "tcp dport 8080");
    const { events, summary } = await trace(
      { name: "handshakes", filter: { netns: netnsOf(network.a) }, slowHandshakeUs: 500_000 },
      async () => {
        const client = network.a.python(program);
        await until("a SYN is lost", () => dropped.count() > 0);
        dropped.lift();
        await client;
      },
      ({ length }) => length >= 1,
    );
    assert.equal(events.length, 1);
    const [slow] = events;
    assert.ok(slow?.kind === "slow-handshake");
    assert.deepEqual([slow.comm, slow.destination.port], ["python3", 8080]);
    assert.ok(slow.latencyUs > 900_000, `${slow.latencyUs} us`);
    assert.deepEqual(summary.totals, { established: 4, slow: 1, failed: 1 });
    const counted = summary.latencies.reduce((sum, { count }) => sum + count, 0);
    assert.equal(counted, 4);
    server.kill("SIGKILL");
  });

  it("tells which segments are sent again", async () => {
    server = network.b.start("/usr/bin/python3", ["-c", LISTEN]);
    if (server.stdout) await once(server.stdout, "data");
    const program = `${DIAL}
import time
s = dial("10.1.2.2", 8080); print("up", flush=True)
while True: s.send(b"x"); time.sleep(0.02)
`;
    let client: ChildProcess | undefined;
    // Another test's network, which runs beside this one, has the same addresses.
    const owned = [ownerOf(network.a).netns, ownerOf(network.b).netns];
    const isOurs = (event: TraceEvent) =>
      event.kind === "retransmit" && owned.includes(event.netns);
    const lost = async (dropped: ReturnType<typeof drop>) => {
      await until("a segment is lost", () => dropped.count() > 0);
      dropped.lift();
    };
    const { events, summary } = await trace(
      { name: "retransmits", filter: { addresses: [network.a.ip4] } },
      async () => {
        const [syn, synAck] = [
          drop(network.a, "output", "tcp dport 8080"),
          drop(network.b, "output", "tcp sport 8080"),
        ];
        client = network.a.start("/usr/bin/python3", ["-c", program]);
        await lost(syn);
        await lost(synAck);
        if (client.stdout) await once(client.stdout, "data");
        // What the sender itself drops would not count as sent.
        await lost(drop(network.b, "input", "tcp dport 8080"));
      },
      (seen) => segmentsOf(seen.filter(isOurs)).size === 3,
    ).finally(() => client?.kill("SIGKILL"));
    for (const event of events.filter(isOurs)) {
      assert.ok(event.kind === "retransmit");
      const isFromA = event.segment !== "syn-ack";
      const [here, there] = isFromA ? [network.a, network.b] : [network.b, network.a];
      assert.deepEqual([event.source.ip, event.destination.ip], [here.ip4, there.ip4]);
      assert.deepEqual({ netns: event.netns, cgroup: event.cgroup }, ownerOf(here));
      if (isFromA) assert.ok(event.retransmits > 0);
    }
    assert.deepEqual(Object.keys(summary.totals).sort(), ["data", "syn", "syn-ack"]);
    server.kill("SIGKILL");
  });

  it("tells how full the ring buffers of this process get", async () => {
    const connects = `${DIAL}
for _ in range(5): dial("10.1.2.2", 9)`;
    const levels = (events: readonly TraceEvent[]) =>
      events.filter((event) => event.kind === "ring-buffer");
    await network.a.python(connects);
    const { events, summary } = await trace(
      { name: "ring-buffers" },
      async () => {
        await network.a.python(connects);
      },
      (seen) => levels(seen).some(({ waitingBytes }) => waitingBytes === 640),
    );
    const last = levels(events).at(-1);
    assert.deepEqual(
      [last?.map, last?.sizeBytes, last?.waitingBytes, last?.peakBytes],
      ["trace_ring", 4096, 640, 640],
    );
    assert.deepEqual(summary.totals, { [`fd ${last?.fd}`]: 640 });
  });

  it("runs the script for kernels that give no reason too", async () => {
    // Up to Linux 6.9, tcp_send_reset has the very fields that tcp_retransmit_skb still has.
    const old = readFileSync(join(THIS_HOST.scriptDir, "resets-5.15.bt"), "utf8");
    const adapted = old.replace(
      "tracepoint:tcp:tcp_send_reset",
      "tracepoint:tcp:tcp_retransmit_skb",
    );
    writeFileSync(join(dir, "resets.bt"), adapted);
    const dropped = drop(network.a, "output", "tcp dport 84");
    const { events } = await trace(
      { name: "resets", filter: { netns: netnsOf(network.a) } },
      () =>
        network.a.python(`${DIAL}s = socket.socket(); s.settimeout(1.5)
try: s.connect(("10.1.2.2", 84))
except TimeoutError: dial("10.1.2.2", 81)`),
      ({ length }) => length >= 2,
      { ...THIS_HOST, scriptDir: dir },
    ).finally(() => dropped.lift());
    const destination = (port: number) => ({ ip: "10.1.2.2", port });
    const by = { kind: "reset", ...ownerOf(network.a), state: "SYN_SENT" };
    assert.deepEqual(events.map(fixed), [
      { ...by, direction: "sent", destination: destination(84) },
      { ...by, direction: "received", destination: destination(81) },
    ]);
  });

  it("ends bpftrace when the agent is killed, and leaves the host's mounts alone", async () => {
    const mounts = () => readFileSync("/proc/self/mounts", "utf8").replaceAll(/^.*netns.*\n/gm, "");
    const mountsBefore = mounts();
    const runner = new URL("../../agent/trace/run.ts", import.meta.url).pathname;
    const program = `import { runTrace } from ${JSON.stringify(runner)};
await runTrace({ name: "handshakes", durationMs: 60_000, signal: new AbortController().signal,
  onEvent: () => {}, onNotice: ({ kind }) => console.log(kind) });`;
    const agent = spawn(process.execPath, ["--input-type=module-typescript", "-e", program], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    if (agent.stdout) assert.match(String(await once(agent.stdout, "data")), /started/);
    const children = readFileSync(`/proc/${agent.pid}/task/${agent.pid}/children`, "utf8");
    const [bpftrace] = children.trim().split(" ");
    assert.equal(readFileSync(`/proc/${bpftrace}/comm`, "utf8"), "bpftrace\n");
    agent.kill("SIGKILL");
    await until("bpftrace has ended", () => !existsSync(`/proc/${bpftrace}`));
    assert.equal(mounts(), mountsBefore);
  });
});
