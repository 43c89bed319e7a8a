import assert from "node:assert/strict";
import dgram from "node:dgram";
import { after, before, beforeEach, describe, it } from "node:test";
import { formatSocketAddress, type IpAddress, parseIp } from "#core/ip.ts";
import { claimAddress, type Netns } from "#native/kernel/index.ts";
import type { PodCapture } from "../../agent/kernel/datapath.ts";
import { DNS_SLOTS, DNS_SLOTS_PER_FAMILY } from "../../agent/kernel/dns-layout.ts";
import { makeNetwork, type TestNetwork } from "../support/netns.ts";
import { PYTHON, Rig } from "./rig.ts";

/**
 * `ask(server, s)` sends a datagram without a connection and prints who answered, and what. `send`
 * and `connected` do one half each, and a connection.
 */
const CLIENT = `${PYTHON}
def udp(host): s = socket.socket(family(host), socket.SOCK_DGRAM); s.settimeout(5); return s
def hear(s): text, peer = s.recvfrom(512); print(end(peer), text.decode())
def ask(host, s=None):
    s = s or udp(host)
    s.sendto(b"?", (host, 53)); hear(s)
def connected(host):
    s = udp(host); s.connect((host, 53)); print("peer", end(s.getpeername()))
    s.send(b"?"); hear(s); return s
`;

describe("capture of DNS", () => {
  let network: TestNetwork;
  let rig: Rig;
  let capture: PodCapture;
  let answering: readonly dgram.Socket[] = [];

  before(async () => {
    network = makeNetwork("dns");
    rig = new Rig(network);
    ({ capture } = await rig.enrol(network.a));
    answering = answerIn(network.a.netns, rig, capture);
  });
  after(async () => {
    for (const socket of answering) socket.close();
    await rig?.close();
    network?.close();
  });
  // With free slots again, but for the one nameserver that is known.
  beforeEach(() => {
    capture.setDns(undefined);
    capture.setDns({ ports: portsOf(answering), nameservers: [parseIp("10.96.0.10")] });
  });

  const python = (program: string) => network.a.python(CLIENT + program);

  for (const [kind, host, shown] of [
    ["an IPv4 socket", "10.96.0.10", "10.96.0.10:53"],
    ["an IPv6 socket", "fd96::10", "[fd96::10]:53"],
    ["an IPv6 socket that speaks to IPv4", "::ffff:10.96.0.10", "[::ffff:10.96.0.10]:53"],
  ] as const) {
    const asked = shown.replace(/\[::ffff:(.*)\]/, "$1");
    it(`answers ${kind} in the name of the server, whether it is connected or not`, async () => {
      assert.deepEqual((await python(`ask("${host}"); connected("${host}")`)).split("\n"), [
        `${shown} for ${asked}`,
        `peer ${shown}`,
        `${shown} for ${asked}`,
      ]);
    });
  }

  it("tells the servers that one socket asks apart", async () => {
    const lines = await python(`
s = udp("10.0.0.1")
for host in ("10.96.0.10", "10.0.0.1", "10.0.0.2"): s.sendto(b"?", (host, 53))
for _ in range(3): hear(s)
s = udp("::1")
for host in ("fd96::10", "::ffff:10.0.0.1", "fd96::11"): ask(host, s)
`);
    assert.deepEqual(lines.split("\n"), [
      "10.96.0.10:53 for 10.96.0.10:53",
      "10.0.0.1:53 for 10.0.0.1:53",
      "10.0.0.2:53 for 10.0.0.2:53",
      "[fd96::10]:53 for [fd96::10]:53",
      "[::ffff:10.0.0.1]:53 for 10.0.0.1:53",
      "[fd96::11]:53 for [fd96::11]:53",
    ]);
  });

  it("answers sockets that are bound, name their source, or connect again", async () => {
    const lines = await python(`
s = udp("10.0.0.1"); s.bind(("10.1.1.2", 0)); ask("10.96.0.10", s)
s = udp("10.0.0.1")
s.setsockopt(socket.IPPROTO_IP, 8, 1)
info = struct.pack("=I4s4s", 0, socket.inet_aton("10.1.1.2"), b"")
s.sendmsg([b"?"], [(socket.IPPROTO_IP, 8, info)], 0, ("10.96.0.10", 53))
text, control, flags, peer = s.recvmsg(512, 512); print(end(peer), text.decode())
s = connected("10.96.0.10"); s.connect(("10.0.0.1", 53)); print("peer", end(s.getpeername()))
s.send(b"?"); hear(s)
`);
    assert.deepEqual(lines.split("\n"), [
      "10.96.0.10:53 for 10.96.0.10:53",
      "10.96.0.10:53 for 10.96.0.10:53",
      "peer 10.96.0.10:53",
      "10.96.0.10:53 for 10.96.0.10:53",
      "peer 10.0.0.1:53",
      "10.0.0.1:53 for 10.0.0.1:53",
    ]);
  });

  it("leaves alone what is not DNS, what stays in the pod, and sockets on a device", async () => {
    const before = rig.datapath.dnsCounters();
    const lines = await python(`
def echo(host):
    s = udp(host); s.bind((host, 53))
    def loop():
        while True:
            text, peer = s.recvfrom(512); s.sendto(b"from the app", peer)
    threading.Thread(target=loop, daemon=True).start()
for host in ("127.0.0.1", "10.1.1.2", "::1", "fd00:1::2"):
    echo(host); ask(host)
s = udp("10.0.0.1"); s.connect(("10.96.0.10", 5353)); print("peer", end(s.getpeername()))
s = udp("10.0.0.1"); s.setsockopt(socket.SOL_SOCKET, 25, b"eth0"); s.sendto(b"?", ("10.96.0.10", 53))
`);
    assert.deepEqual(lines.split("\n"), [
      "127.0.0.1:53 from the app",
      "10.1.1.2:53 from the app",
      "[::1]:53 from the app",
      "[fd00:1::2]:53 from the app",
      "peer 10.96.0.10:5353",
    ]);
    const after = rig.datapath.dnsCounters();
    assert.equal(after.captured, before.captured);
    assert.equal(after.self - before.self, 4);
    assert.equal(after.onDevice - before.onDevice, 1);
  });

  it("leaves servers beyond its slots alone, and never those that it was told", async () => {
    const before = rig.datapath.dnsCounters();
    const lines = await python(`
for number in range(1, ${DNS_SLOTS_PER_FAMILY}): ask("10.0.0.%d" % number)
s = udp("10.0.0.9"); s.sendto(b"?", ("10.0.0.9", 53))
ask("10.96.0.10")
`);
    assert.equal(lines.split("\n").length, DNS_SLOTS_PER_FAMILY);
    const after = rig.datapath.dnsCounters();
    assert.equal(after.noSlot - before.noSlot, 1);
  });

  it("lets the agent's own sockets reach the nameserver", async () => {
    const own = dgram.createSocket("udp4");
    const server = dgram.createSocket("udp4");
    server.bind({ fd: network.b.netns.openUdpSocket({ family: "ipv4", bind: at(network.b.ip4) }) });
    server.on("message", (_, from) => server.send("the real one", from.port, from.address));
    const fd = network.a.netns.openUdpSocket({ family: "ipv4" });
    rig.datapath.markAgentSocket(fd);
    own.bind({ fd });
    try {
      const heard = new Promise<string>((resolve) => {
        own.once("message", (text, from) => resolve(`${from.address}:${from.port} ${text}`));
      });
      own.send("?", 53, network.b.ip4);
      assert.equal(await heard, `${network.b.ip4}:53 the real one`);
    } finally {
      own.close();
      server.close();
    }
  });

  it("captures nothing of a pod that is not enrolled, or has been told to be left alone", async () => {
    capture.setDns(undefined);
    const before = rig.datapath.dnsCounters();
    const name = `s = udp("10.0.0.1"); s.connect(("10.1.2.1", 53)); print(end(s.getpeername()))`;
    for (const pod of [network.a, network.b]) {
      assert.equal(await pod.python(CLIENT + name), "10.1.2.1:53");
    }
    assert.deepEqual(rig.datapath.dnsCounters(), before);
  });

  it("lets no process of the pod bind the agent's address", async () => {
    const lines = await python(`
for option in (2, 15):  # SO_REUSEADDR, SO_REUSEPORT
    s = udp("10.0.0.1"); s.setsockopt(socket.SOL_SOCKET, option, 1)
    try: s.bind(("127.0.0.1", ${portsOf(answering)[0]})); print("bound")
    except OSError as error: print(errno.errorcode[error.errno])
`);
    assert.deepEqual(lines.split("\n"), ["EADDRINUSE", "EADDRINUSE"]);
  });

  it("fails at once while the agent is away, and goes on when it is back on the same ports", async () => {
    const ports = portsOf(answering);
    for (const socket of answering) socket.close();
    answering = [];
    const away = `
s = udp("10.0.0.1"); s.connect(("10.96.0.10", 53)); s.send(b"?")
try: s.recv(512)
except ConnectionRefusedError: print("refused")
`;
    assert.equal(await python(away), "refused");
    assert.deepEqual(capture.dnsPorts(), ports);
    answering = answerIn(network.a.netns, rig, capture, ports);
    assert.equal(await python(`ask("10.96.0.10")`), "10.96.0.10:53 for 10.96.0.10:53");
  });

  it("is handed over with the pins, and gone with the pod", async () => {
    rig.datapath.close();
    rig.datapath = rig.open();
    ({ capture } = await rig.enrol(network.a));
    assert.deepEqual(capture.dnsPorts(), portsOf(answering));
    assert.equal(capture.dnsServer(0)?.ip, "10.96.0.10");
    capture.remove();
    assert.equal(capture.dnsServer(0), undefined);
    ({ capture } = await rig.enrol(network.a));
    assert.equal(capture.dnsPorts(), undefined);
  });
});

function at(ip: IpAddress, port = 53) {
  return { ip, port };
}

function portsOf(sockets: readonly dgram.Socket[]): readonly number[] {
  return sockets.map((socket) => socket.address().port);
}

/** Eight sockets that tell whoever asks which nameserver it asked. */
function answerIn(
  netns: Netns,
  rig: Rig,
  capture: PodCapture,
  ports: readonly number[] = [],
): readonly dgram.Socket[] {
  return Array.from({ length: DNS_SLOTS }, (_, slot) => {
    const isIpv4 = slot < DNS_SLOTS_PER_FAMILY;
    const bind = at(parseIp(isIpv4 ? "127.0.0.1" : "::1"), ports[slot] ?? 0);
    const fd = netns.openUdpSocket({ family: isIpv4 ? "ipv4" : "ipv6", bind });
    rig.datapath.markAgentSocket(fd);
    const socket = dgram.createSocket(isIpv4 ? "udp4" : "udp6");
    socket.bind({ fd });
    claimAddress(fd);
    socket.on("message", (_, from) => {
      const server = capture.dnsServer(slot);
      const text = server === undefined ? "for nobody" : `for ${formatSocketAddress(server)}`;
      socket.send(text, from.port, from.address);
    });
    return socket;
  });
}
