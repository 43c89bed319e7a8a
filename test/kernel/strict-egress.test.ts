import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { MeshError } from "#core/errors.ts";
import { parseIp } from "#core/ip.ts";
import type { StrictMode } from "../../agent/kernel/probe-layout.ts";
import { makeNetwork, type TestNetwork } from "../support/netns.ts";
import { PYTHON, Rig, uidOf } from "./rig.ts";

/** `attempt()` prints what became of sending; `syn()` is a TCP header that asks for port 80. */
const SENDERS = `${PYTHON}
def attempt(s, data, to):
    try: s.sendto(data, to); print("sent")
    except OSError as error: print(errno.errorcode[error.errno])
def syn(): return struct.pack("!HHIIBBHHH", 4242, 80, 1, 0, 5 << 4, 2, 1024, 0, 0)
def packet(protocol, rest, to, fragment=0):
    return struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(rest), 1, fragment, 64, protocol, 0,
                       socket.inet_aton("10.1.1.2"), socket.inet_aton(to)) + rest
raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
raw4 = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP)
raw6 = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_TCP)
udp4, udp6 = (socket.socket(f, socket.SOCK_DGRAM) for f in (socket.AF_INET, socket.AF_INET6))
`;

const TCP = `
attempt(raw, packet(6, syn(), "10.1.2.2"), ("10.1.2.2", 0))
attempt(raw, packet(6, syn(), "10.1.2.2", 1), ("10.1.2.2", 0))
attempt(raw4, syn(), ("10.1.2.2", 0))
attempt(raw6, syn(), ("fd00:2::2", 0))
`;

const OTHERS = `
udp_header = struct.pack("!HHHH", 4242, 53, 8, 0)
attempt(udp4, b"x", ("10.1.2.2", 9999))
attempt(udp4, b"x", ("10.1.2.2", 53))
attempt(udp6, b"x", ("fd00:2::2", 9999))
attempt(udp6, b"x", ("::ffff:10.1.2.2", 9999))
attempt(raw, packet(1, struct.pack("!BBHHH", 8, 0, 0xf7fe, 0, 1), "10.1.2.2"), ("10.1.2.2", 0))
attempt(raw, packet(4, packet(6, syn(), "10.1.2.2"), "10.1.2.2"), ("10.1.2.2", 0))
attempt(raw, packet(132, b"12345678", "10.1.2.2"), ("10.1.2.2", 0))
attempt(raw, packet(17, udp_header, "10.1.1.1", 1), ("10.1.1.1", 0))
`;

/** What a pod needs to live: its nameservers, and itself. */
const NEEDED = `
attempt(udp4, b"x", ("10.1.1.1", 53))
attempt(udp6, b"x", ("fd00:1::1", 53))
attempt(udp6, b"x", ("::ffff:10.1.1.1", 53))
attempt(udp4, b"x", ("127.0.0.1", 9999))
attempt(udp4, b"x", ("10.1.1.2", 9999))
attempt(udp6, b"x", ("fd00:1::2", 9999))
`;

describe("strict egress", () => {
  let network: TestNetwork;
  let rig: Rig;

  before(() => {
    network = makeNetwork("strict");
    rig = new Rig(network);
  });
  after(async () => {
    await rig?.close();
    network?.close();
  });

  const enrol = async (mode: StrictMode | undefined) => {
    const { a } = network;
    const nameservers = ["10.1.1.1", "fd00:1::1"].map((ip) => parseIp(ip));
    const strictEgress = mode && { mode, cgroup: a.cgroup, nameservers };
    await rig.enrol(a, [a.ip4, a.ip6], { strictEgress });
  };
  const send = async (what: string) => (await network.a.python(SENDERS + what)).split("\n");
  const all = (text: string, count: number) => new Array<string>(count).fill(text);

  it("is off unless it is asked for, and counts nothing", async () => {
    await enrol(undefined);
    assert.deepEqual(await send(TCP + OTHERS + NEEDED), all("sent", 18));
    const { strictBlockedTcp, strictReportedTcp } = rig.datapath.guardCounters();
    assert.deepEqual([strictBlockedTcp, strictReportedTcp], [0, 0]);
  });

  it("reports what it would block, and lets it go", async () => {
    await enrol("report");
    assert.deepEqual(await send(TCP + OTHERS + NEEDED), all("sent", 18));
    const counts = rig.datapath.guardCounters();
    assert.equal(counts.strictReportedTcp, 4);
    assert.equal(counts.strictReportedProtocol, 8);
    assert.equal(counts.strictBlockedTcp + counts.strictBlockedProtocol, 0);
  });

  it("blocks TCP that no TCP socket made, and other protocols, with EPERM", async () => {
    await enrol("enforce");
    const before = rig.datapath.guardCounters();
    assert.deepEqual(await send(TCP), all("EPERM", 4));
    assert.deepEqual(await send(OTHERS), all("EPERM", 8));
    const counts = rig.datapath.guardCounters();
    assert.equal(counts.strictBlockedTcp, 4);
    assert.equal(counts.strictBlockedProtocol, 8);
    assert.equal(counts.strictReportedTcp, before.strictReportedTcp);
  });

  it("leaves a pod its nameservers and itself", async () => {
    assert.deepEqual(await send(NEEDED), all("sent", 6));
  });

  it("leaves captured connections alone, in both directions", async () => {
    const { a, b } = network;
    assert.match(await a.python(`${PYTHON}dial("10.1.2.2", 80)`), / out4 .*=10\.1\.2\.2:80$/);
    assert.match(await a.python(`${PYTHON}dial("fd00:2::2", 80)`), / out6 /);
    assert.match(await b.python(`${PYTHON}dial("10.1.1.2", 80)`), / in4 /);
    assert.match(await b.python(`${PYTHON}dial("fd00:1::2", 80)`), / in6 /);
  });

  it("leaves the pod's kernel its neighbours and its errors", async () => {
    const { a, b } = network;
    await a.run("ip", ["neighbour", "flush", "dev", "eth0"]);
    const program = (host: string) => `${PYTHON}
s = socket.socket(family("${host}"), socket.SOCK_DGRAM); s.settimeout(10)
s.connect(("${host}", 9)); s.send(b"x")
try: s.recv(1)
except OSError as error: print(errno.errorcode.get(error.errno, repr(error)))`;
    for (const host of ["10.1.1.2", "fd00:1::2"]) {
      assert.equal(await b.python(program(host)), "ECONNREFUSED");
    }
  });

  it("costs other pods nothing: their packets do not pass it", async () => {
    const before = rig.datapath.guardCounters();
    const line = await network.b.python(`${SENDERS}attempt(udp4, b"x", ("10.1.1.2", 9999))`);
    assert.equal(line, "sent");
    assert.deepEqual(rig.datapath.guardCounters(), before);
  });

  it("stays in force without an agent, and ends with the enrolment", async () => {
    rig.datapath.close();
    assert.deepEqual(await send(TCP), all("EPERM", 4));
    rig.datapath = rig.open();
    const pin = join(rig.pinDir, "pods", uidOf(network.a), "strict");
    assert.ok(existsSync(pin));
    await enrol(undefined);
    assert.ok(!existsSync(pin));
    assert.deepEqual(await send(TCP), all("sent", 4));
    await enrol("enforce");
    rig.datapath.forget(uidOf(network.a));
    assert.deepEqual(await send(TCP), all("sent", 4));
  });

  it("refuses a cgroup that is none", () => {
    const { a } = network;
    for (const cgroup of ["/", join(a.cgroup, "nowhere")]) {
      const strictEgress = { mode: "enforce", cgroup, nameservers: [] } as const;
      const pod = { uid: uidOf(a), netns: a.netns, addresses: [a.ip4], id: 1, strictEgress };
      assert.throws(() => rig.datapath.enrol(pod), {
        constructor: MeshError,
        code: "REQUEST_REFUSED",
      });
    }
    rig.datapath.forget(uidOf(a));
  });
});
