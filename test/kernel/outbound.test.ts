import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { makeNetwork, type TestNetwork } from "../support/netns.ts";
import { PYTHON, Rig } from "./rig.ts";

describe("outbound capture", () => {
  let network: TestNetwork;
  let rig: Rig;

  before(async () => {
    network = makeNetwork("out");
    rig = new Rig(network);
    await rig.enrol(network.a);
  });
  after(async () => {
    await rig?.close();
    network?.close();
  });

  const python = (program: string) => network.a.python(PYTHON + program);

  for (const [family, host, own, vip] of [
    ["an IPv4 socket", "10.96.0.10", "10.1.1.2", "10.96.0.10:80"],
    ["an IPv6 socket", "fd96::10", "[fd00:1::2]", "[fd96::10]:80"],
  ] as const) {
    it(`takes ${family} to the agent and keeps what the application sees`, async () => {
      const line = await python(`dial("${host}", 80)`);
      const [, port] = /^name=\S+:(\d+) /.exec(line) ?? [];
      const slot = host.includes(":") ? "out6" : "out4";
      assert.equal(
        line,
        `name=${own}:${port} peer=${vip} ` +
          `${slot} peer=${own}:${port} local=${own}:15001 original=${vip}`,
      );
    });
  }

  it("takes an IPv6 socket that dials a mapped IPv4 address", async () => {
    const line = await python(`dial("::ffff:10.96.0.10", 80)`);
    assert.match(
      line,
      /^name=\[::ffff:10.1.1.2\]:\d+ peer=\[::ffff:10.96.0.10\]:80 out4 peer=10.1.1.2:\d+ local=10.1.1.2:15001 original=10.96.0.10:80$/,
    );
  });

  it("takes the address of another pod", async () => {
    assert.match(await python(`dial("${network.b.ip4}", 8080)`), / original=10.1.2.2:8080$/);
    assert.match(await python(`dial("${network.b.ip6}", 8080)`), / original=\[fd00:2::2\]:8080$/);
  });

  it("takes sockets that are bound, on a device, non-blocking, MPTCP, or send before they connect", async () => {
    const lines = await python(`
dial("10.96.0.10", 1, prepare=lambda s: s.bind(("10.1.1.2", 0)))
dial("10.96.0.10", 2, prepare=lambda s: s.setsockopt(socket.SOL_SOCKET, 25, b"eth0"))
dial("10.96.0.10", 3, proto=262)
s = socket.socket(); s.setblocking(False)
assert s.connect_ex(("10.96.0.10", 4)) == errno.EINPROGRESS
s.settimeout(5); print(text(s))
dial("10.96.0.10", 5, prepare=lambda s: s.bind(("127.0.0.1", 0)))
s = socket.socket(); s.sendto(b"early", socket.MSG_FASTOPEN, ("10.96.0.10", 6)); print(text(s))
`);
    const originals = lines.split("\n").map((line) => line.split("original=")[1]);
    assert.deepEqual(
      originals,
      [1, 2, 3, 4, 5, 6].map((port) => `10.96.0.10:${port}`),
    );
  });

  it("leaves what stays in the pod alone", async () => {
    const before = rig.datapath.counters();
    const lines = await python(`
serve("0.0.0.0", 8081, 9)
serve("::", 8082, 9, prepare=lambda s: s.setsockopt(41, 26, 1))
for host in ("127.0.0.1", "127.0.0.2", "0.0.0.0", "10.1.1.2", "::ffff:127.0.0.1", "::ffff:10.1.1.2"):
    dial(host, 8081)
for host in ("::1", "::", "fd00:1::2"):
    dial(host, 8082)
`);
    for (const line of lines.split("\n")) assert.match(line, / app accept=/);
    assert.equal(lines.split("\n").length, 9);
    const after = rig.datapath.counters();
    assert.equal(after.captured, before.captured);
    assert.equal(after.self - before.self, 9);
    assert.equal(after.inSelf - before.inSelf, 9);
  });

  it("is not left by a mark, which CAP_NET_RAW can set", async () => {
    const line = await python(`
for mark in (1, 0x539, 0x7fffffff):
    dial("10.96.0.10", 80, prepare=lambda s: s.setsockopt(socket.SOL_SOCKET, 36, mark))
`);
    for (const text of line.split("\n")) assert.match(text, / original=10.96.0.10:80$/);
  });

  it("follows a socket that connects again elsewhere", async () => {
    const lines = await python(`
serve("127.0.0.1", 8083)
s = socket.socket()
for port in (81, 82):
    s.connect(("10.96.0.10", port)); print(text(s))
    libc = __import__("ctypes").CDLL(None)
    assert libc.connect(s.fileno(), struct.pack("=H14x", 0), 16) == 0  # AF_UNSPEC disconnects
dial("127.0.0.1", 8083, s)
`);
    const [first, second, third] = lines.split("\n");
    assert.match(first ?? "", / original=10.96.0.10:81$/);
    assert.match(second ?? "", / original=10.96.0.10:82$/);
    // Without a note of the last attempt, which would show the VIP.
    assert.match(third ?? "", / peer=127.0.0.1:8083 app accept=/);
  });

  it("leaves UDP alone", async () => {
    const before = rig.datapath.counters();
    const line = await python(`
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.connect(("10.1.2.2", 53))
print(end(s.getpeername()))
`);
    assert.equal(line, "10.1.2.2:53");
    const after = rig.datapath.counters();
    assert.equal(after.notTcp - before.notTcp, 1);
    assert.equal(after.captured, before.captured);
  });

  it("names no destination for whoever dials the outbound listener itself", async () => {
    assert.match(await python(`dial("10.1.1.2", 15001)`), / out4 .* original=none$/);
    assert.match(await python(`dial("fd00:1::2", 15001)`), / out6 .* original=none$/);
  });

  it("does not let an application listen in the agent's place", async () => {
    const line = await python(`
serve("0.0.0.0", 15001, 99); serve("10.1.1.2", 15008, 99)
dial("10.96.0.10", 80)
dial("10.1.1.2", 15008)
`);
    const [captured, tunnel] = line.split("\n");
    assert.match(captured ?? "", / out4 .* original=10.96.0.10:80$/);
    assert.match(tunnel ?? "", / hbone4 /);
  });

  it("does not capture what is not enrolled", async () => {
    const before = rig.datapath.counters();
    assert.equal(await network.b.python(`${PYTHON}dial("10.1.2.1", 1)`), "ECONNREFUSED");
    const after = rig.datapath.counters();
    assert.ok(after.notEnrolled > before.notEnrolled);
  });

  it("leaves no transient entry behind", () => {
    assert.equal(rig.handoffEntries(), 0);
  });
});
