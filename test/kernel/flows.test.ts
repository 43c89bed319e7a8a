import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { BpfMap, BpfObject } from "#native/kernel/index.ts";
import { FlowReader } from "../../agent/kernel/flow-events.ts";
import type { DenyEvent, FlowEvent } from "../../agent/kernel/flow-layout.ts";
import { makeNetwork, type TestNetwork } from "../support/netns.ts";
import { waitFor } from "../support/wait.ts";
import { OBJECT_DIR, PYTHON, Rig, uidOf } from "./rig.ts";

const LOAD = 10_000;

/** Reads 15 bytes, answers with 7, and ends. */
const APPLICATION = `
import socketserver
class Echo(socketserver.BaseRequestHandler):
    def handle(self):
        got = b""
        while len(got) < 15: got += self.request.recv(64)
        self.request.sendall(b"7 bytes")
        while self.request.recv(64): pass
class Server(socketserver.ThreadingTCPServer):
    address_family = socket.AF_INET6
    allow_reuse_address = True
    request_queue_size = 1024
    daemon_threads = True
    def server_bind(self):
        self.socket.setsockopt(41, 26, 0)
        super().server_bind()
server = Server(("::", 80), Echo)
print("ready", flush=True)
server.serve_forever()
`;

const EXCHANGE = `
def exchange(host, port=80):
    s = socket.socket(family(host), socket.SOCK_STREAM)
    s.connect((host, port))
    s.sendall(b"fifteen bytes..")
    got = b""
    while len(got) < 7: got += s.recv(64)
    s.close()
`;

describe("flow events", () => {
  let network: TestNetwork;
  let rig: Rig;
  let reader: FlowReader;
  let ids: { readonly source: number; readonly destination: number };

  before(async () => {
    network = makeNetwork("flow");
    rig = new Rig(network);
    await rig.enrol(network.a);
    await rig.enrol(network.b);
    const source = rig.direct.newId();
    const destination = rig.direct.newId();
    ids = { source, destination };
    rig.direct.admit(uidOf(network.a), source);
    rig.direct.admit(uidOf(network.b), destination);
    const row = { source, destination } as const;
    rig.direct.replacePolicies([
      { ...row, port: 80, verdict: "allow", rule: 0 },
      { ...row, port: 81, verdict: "deny", rule: 7 },
      { ...row, port: 83, verdict: "allow", rule: 0 },
    ]);
    const opened = rig.datapath.openFlows();
    assert.ok(opened);
    reader = opened;
    const application = network.b.start("/usr/bin/python3", ["-c", PYTHON + APPLICATION]);
    await new Promise((resolve) => application.stdout?.once("data", resolve));
  });
  after(async () => {
    reader?.close();
    await rig?.close();
    network?.close();
  });

  const python = (program: string) => network.a.python(PYTHON + EXCHANGE + program);
  const noLosses = { flows: 0, denies: 0, untracked: 0, unreadable: 0 };

  /** Takes events until there are as many. */
  async function take(count: number, from = reader): Promise<readonly FlowEvent[]> {
    const events: FlowEvent[] = [];
    await waitFor(`${count} events`, () => {
      events.push(...from.takeFlows());
      return events.length >= count;
    });
    return events;
  }

  for (const [name, host, ip] of [
    ["IPv4", () => network.b.ip4, () => network.b.ip4],
    ["IPv6", () => network.b.ip6, () => network.b.ip6],
    ["mapped IPv4", () => `::ffff:${network.b.ip4}`, () => network.b.ip4],
  ] as const) {
    it(`tells of both ends of a direct connection over ${name}`, async () => {
      await python(`exchange("${host()}")`);
      const events = await take(4);
      assert.equal(events.length, 4);
      for (const role of ["directOut", "directIn"] as const) {
        const [opened, closed] = events.filter((event) => event.role === role);
        assert.ok(opened && closed);
        assert.deepEqual([opened.kind, closed.kind], ["opened", "closed"]);
        assert.equal(opened.socket, closed.socket);
        assert.equal(closed.destination.ip, ip());
        assert.equal(closed.destination.port, 80);
        const { sourceId, destinationId } = closed;
        assert.deepEqual({ sourceId, destinationId }, expectedIds());
        const bytes = [closed.sentBytes, closed.receivedBytes];
        assert.deepEqual(bytes, role === "directOut" ? [15, 7] : [7, 15]);
        assert.ok(closed.wasOpen && !closed.reset && closed.durationMs > 0);
        assert.ok(closed.rttUs > 0 && closed.retransmits === 0);
        const { netns } = role === "directOut" ? network.a : network.b;
        assert.equal(closed.netns, netns.cookie());
      }
      assert.deepEqual(reader.losses(), noLosses);
    });
  }

  const expectedIds = () => ({ sourceId: ids.source, destinationId: ids.destination });

  it("counts no byte for the FIN of the side that ends last, nor for a reset", async () => {
    await python(`
s = socket.socket(); s.connect(("${network.b.ip4}", 80)); s.sendall(b"fifteen bytes..")
s.shutdown(socket.SHUT_WR)
while s.recv(64): pass
s.close()
s = socket.socket(); s.connect(("${network.b.ip4}", 80)); s.sendall(b"three")
s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
time.sleep(0.05)
s.close()`);
    const closed = (await take(8)).filter(({ kind }) => kind === "closed");
    const told = closed.map(({ role, sentBytes, receivedBytes, reset }) =>
      [role, sentBytes, receivedBytes, reset].join(" "),
    );
    assert.deepEqual(told.toSorted(), [
      "directIn 0 5 true",
      "directIn 7 15 false",
      "directOut 15 7 false",
      "directOut 5 0 true",
    ]);
  });

  it("tells of a refusal by policy, with its rule, and of a connection that never opened", async () => {
    const output = await python(`
for port in (81, 83):
    s = socket.socket()
    try: s.connect(("${network.b.ip4}", port))
    except OSError as error: print(errno.errorcode[error.errno])
    s.close()`);
    assert.equal(output, "EPERM\nECONNREFUSED");
    const [event] = await take(1);
    assert.deepEqual([event?.kind, event?.role, event?.wasOpen], ["closed", "directOut", false]);
    assert.deepEqual(reader.takeDenies().map(summaryOf), [
      { outcome: "denied", to: `${network.b.ip4}:81`, rule: 7, netns: network.a.netns.cookie() },
    ]);
  });

  const summaryOf = ({ outcome, destination, rule, netns }: DenyEvent) => {
    return { outcome, to: `${destination.ip}:${destination.port}`, rule, netns };
  };

  it(`tells once of each of ${LOAD} connections, and loses none`, async () => {
    reader.takeFlows();
    const closed = { directOut: 0, directIn: 0 };
    const sockets = new Set<bigint>();
    const collect = () => {
      for (const { kind, role, socket, sentBytes, receivedBytes } of reader.takeFlows()) {
        if (kind !== "closed" || (role !== "directOut" && role !== "directIn")) continue;
        closed[role]++;
        sockets.add(socket);
        assert.equal(sentBytes + receivedBytes, 22);
      }
    };
    const timer = setInterval(collect, 50);
    try {
      await python(`
def work():
    for _ in range(${LOAD / 4}): exchange("${network.b.ip4}")
threads = [threading.Thread(target=work) for _ in range(4)]
for t in threads: t.start()
for t in threads: t.join()`);
      await waitFor("all have closed", () => {
        collect();
        return closed.directOut + closed.directIn >= 2 * LOAD;
      });
    } finally {
      clearInterval(timer);
    }
    assert.deepEqual(closed, { directOut: LOAD, directIn: LOAD });
    assert.equal(sockets.size, 2 * LOAD);
    assert.deepEqual(reader.losses(), noLosses);
  });

  it("counts what does not fit into a tiny ring, and refusals still come through", async () => {
    const tiny = await attachTiny();
    try {
      await python(`
for _ in range(100): exchange("${network.b.ip4}")
s = socket.socket()
try: s.connect(("${network.b.ip4}", 81))
except OSError: pass`);
      assert.equal(reader.takeDenies().filter(({ outcome }) => outcome === "denied").length, 1);
      await take(400);
      const kept = tiny.reader.takeFlows().length;
      assert.ok(kept > 0 && kept < 400);
      await waitFor("every event is kept or counted", () => {
        return kept + tiny.reader.takeFlows().length + tiny.reader.losses().flows >= 400;
      });
      assert.equal(kept + tiny.reader.losses().flows, 400);
    } finally {
      tiny.close();
    }
  });

  it("wakes its reader for a refusal at once, and for flows by the quarter", async () => {
    reader.takeFlows();
    reader.takeDenies();
    let woken = 0;
    reader.watch(() => {
      woken++;
    });
    // Whoever begins to watch is told of what is there.
    await waitFor("the first call", () => true);
    const before = woken;
    await python(`exchange("${network.b.ip4}")`);
    await take(4);
    assert.equal(woken, before);
    await python(`
s = socket.socket()
try: s.connect(("${network.b.ip4}", 81))
except OSError: pass`);
    await waitFor("the call", () => woken > before);
    assert.equal(reader.takeDenies().length, 1);
    const quiet = woken;
    await python(`for _ in range(600): exchange("${network.b.ip4}")`);
    await waitFor("the second call", () => woken > quiet);
    assert.equal((await take(2_400)).length, 2_400);
  });

  it("hands over: what was not read by one reader is read by the next", async () => {
    await python(`exchange("${network.b.ip4}")`);
    await waitFor("the connection is gone", () => rig.attestEntries() === 0);
    reader.close();
    const next = rig.datapath.openFlows();
    assert.ok(next);
    reader = next;
    assert.equal((await take(4)).length, 4);
  });

  /** A second program beside the first, with a ring of one page of its own. */
  async function attachTiny() {
    const pin = (name: string) => join(rig.pinDir, "maps", name);
    const object = new BpfObject(join(OBJECT_DIR, "flows.bpf.o"));
    const shared = ["pods", "notes", "handoff", "counters", "meta", "local_ips", "attest"];
    for (const name of [...shared, "policy", "services", "endpoints", "denies"]) {
      object.setPinPath(name, pin(name));
    }
    const own = { flows: pin("tiny_flows"), losses: pin("tiny_losses") };
    object.setPinPath("flows", own.flows);
    object.setPinPath("flow_losses", own.losses);
    object.setEntriesMax("flows", 4096);
    object.load();
    const link = object.attachCgroup("flow_sockops", rig.cgroupRoot);
    const losses = BpfMap.openPinned(own.losses);
    // Its refusals are the first reader's: this one only has the descriptor.
    const tiny = new FlowReader({ flows: own.flows, denies: pin("denies") }, losses);
    const close = () => {
      tiny.close();
      losses.close();
      link.close();
      object.close();
    };
    return { reader: tiny, close };
  }

  it("leaves nothing behind", async () => {
    await waitFor("no entry is left", () => rig.attestEntries() + rig.handoffEntries() === 0);
    assert.ok(existsSync(join(rig.pinDir, "links", "flow_sockops")));
  });
});
