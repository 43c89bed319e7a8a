import assert from "node:assert/strict";
import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import { after, afterEach, before, beforeEach, describe, it } from "node:test";
import { formatSocketAddress, parseIp } from "#core/ip.ts";
import { dial } from "#wire/hbone/dial.ts";
import { until } from "../support/kernel.ts";
import { makeNetwork, type TestNetwork, type TestPod } from "../support/netns.ts";
import { NftRig } from "./nft-rig.ts";
import { PYTHON, uidOf } from "./rig.ts";

const SERVERS = `
def echo():
    s = socket.create_server(("10.1.2.2", 8090))
    while True:
        c, _ = s.accept()
        while data := c.recv(99): c.sendall(data)
threading.Thread(target=echo, daemon=True).start()
serve("10.1.2.2", 8080, 999); serve("fd00:2::2", 8080, 999); print("up", flush=True)
time.sleep(60)`;

/** Everything of ours in a pod's network namespace, and nothing else. */
async function traces(pod: TestPod): Promise<string> {
  const commands = [
    "nft list tables",
    "ip -4 rule show pref 32764",
    "ip -6 rule show pref 32764",
    "ip -4 route show table 15001",
    "ip -6 route show table 15001",
  ];
  const { stdout } = await pod.run("/bin/sh", ["-c", `(${commands.join("; ")}) 2>/dev/null`]);
  return stdout;
}

describe("nftables in the pod", () => {
  let network: TestNetwork;
  let rig: NftRig;
  let applications: ChildProcess;

  before(async () => {
    network = makeNetwork("nft");
    applications = network.b.start("/usr/bin/python3", ["-c", PYTHON + SERVERS]);
    if (applications.stdout) await once(applications.stdout, "data");
  });
  after(() => {
    applications?.kill();
    network?.close();
  });
  beforeEach(() => {
    rig = new NftRig(network);
  });
  afterEach(async () => {
    await rig.close();
    for (const pod of [network.a, network.b]) assert.equal(await traces(pod), "");
  });

  const a = (program: string) => network.a.python(PYTHON + program);
  const b = (program: string) => network.b.python(PYTHON + program);

  describe("the pod that connects", () => {
    it("is captured on its way to anything, which it still sees as its peer", async () => {
      await rig.enrol(network.a);
      for (const [dialled, original, own] of [
        ["10.1.2.2", "10.1.2.2:8080", "10.1.1.2"],
        ["::ffff:10.1.2.2", "10.1.2.2:8080", "10.1.1.2"],
        ["10.96.0.10", "10.96.0.10:8080", "10.1.1.2"],
        ["fd00:2::2", "[fd00:2::2]:8080", "[fd00:1::2]"],
        ["fd96::10", "[fd96::10]:8080", "[fd00:1::2]"],
      ] as const) {
        const line = await a(`dial("${dialled}", 8080)`);
        assert.match(line, / outbound ipv[46] /, dialled);
        assert.ok(line.endsWith(` original=${original}`), line);
        assert.ok(line.includes(` peer=${own}:`), line);
        assert.ok(!line.includes(":15001"), line);
      }
    });

    it("reaches itself, and finds nobody who would take it for captured", async () => {
      await rig.enrol(network.a);
      const lines = await a(`
serve("0.0.0.0", 8081, 2); dial("10.1.1.2", 8081); dial("127.0.0.1", 8081)
dial("10.1.1.2", 15001); dial("127.0.0.1", 15001)`);
      const [own, loopback, byAddress, listener] = lines.split("\n");
      assert.match(own ?? "", / app accept=10.1.1.2:/);
      assert.match(loopback ?? "", / app accept=127.0.0.1:/);
      assert.equal(byAddress, "ECONNREFUSED");
      assert.match(listener ?? "", / original=none$/);
    });

    it("is refused while it is blocked", async () => {
      const capture = await rig.enrol(network.a);
      capture.block();
      const refused = "ECONNREFUSED\nECONNREFUSED";
      assert.equal(await a(`dial("10.1.2.2", 8080); dial("fd00:2::2", 8080)`), refused);
      capture.unblock();
      assert.match(await a(`dial("10.1.2.2", 8080)`), / outbound ipv4 /);
    });

    it("keeps the connections that it had, in both directions", async () => {
      const talk = network.a.start("/usr/bin/python3", [
        "-c",
        `${PYTHON}
import signal
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
s = socket.create_connection(("10.1.2.2", 8090)); s.sendall(b"1"); s.recv(1)
print("up", flush=True); signal.sigwait([signal.SIGUSR1])
s.sendall(b"2"); print(s.recv(1).decode())`,
      ]);
      let output = "";
      talk.stdout?.on("data", (data) => {
        output += data;
      });
      await until("it is connected", () => output.includes("up"));
      await rig.enrol(network.a);
      await rig.enrol(network.b);
      talk.kill("SIGUSR1");
      await once(talk, "close");
      assert.equal(output, "up\n2\n");
    });
  });

  describe("the pod that is connected to", () => {
    it("is captured on each port, and the agent knows which", async () => {
      await rig.enrol(network.b);
      for (const [dialled, own, local] of [
        ["10.1.2.2", "10.1.1.2", "10.1.2.2"],
        ["fd00:2::2", "[fd00:1::2]", "[fd00:2::2]"],
      ] as const) {
        for (const port of [1, 8080, 15_001, 15_006, 65_535]) {
          const line = await a(`dial("${dialled}", ${port})`);
          assert.match(line, new RegExp(` inbound ipv[46] peer=.*arrived=.*:${port} `));
          assert.ok(line.includes(` peer=${own}:`), line);
          assert.ok(line.includes(` arrived=${local}:${port} `), line);
        }
        assert.match(await a(`dial("${dialled}", 15008)`), / hbone ipv[46] /);
      }
    });

    it("lets nobody past who makes conntrack take another packet for the first", async () => {
      await rig.enrol(network.b);
      const lines = await a(`
def checksum(data):
    total = sum(struct.unpack("!%dH" % (len(data) // 2), data))
    while total >> 16: total = (total & 0xffff) + (total >> 16)
    return ~total & 0xffff
def send(port, flags):
    head = struct.pack("!HHLLBBHHH", port, 8080, 1, 1, 5 << 4, flags, 1024, 0, 0)
    pseudo = socket.inet_aton("10.1.1.2") + socket.inet_aton("10.1.2.2") + struct.pack("!BBH", 0, 6, 20)
    head = head[:16] + struct.pack("!H", checksum(pseudo + head)) + head[18:]
    raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP)
    raw.sendto(head, ("10.1.2.2", 0))
for flags in (0x10, 0x11, 0x12, 0x04, 0x01, 0x00):
    send(40000 + flags, flags)
    s = socket.socket(); s.bind(("10.1.1.2", 40000 + flags)); dial("10.1.2.2", 8080, s)`);
      assert.equal(lines.split("\n").length, 6);
      assert.doesNotMatch(lines, /app accept/);
    });

    for (const [kind, client, server] of [
      ["IPv4", "10.1.1.2", "10.1.2.2"],
      ["IPv6", "fd00:1::2", "fd00:2::2"],
    ] as const) {
      it(`sees its client's own address when the agent connects (${kind})`, async () => {
        await rig.enrol(network.b);
        const family = client.includes(":") ? "ipv6" : "ipv4";
        const openSocket = () => {
          const fd = network.b.netns.openSocket({ family });
          rig.datapath.markAgentSocket(fd, { ip: parseIp(client), port: 1234 });
          return fd;
        };
        const address = { ip: parseIp(server), port: 8080 };
        const options = { allowHalfOpen: false, highWaterMark: 16_384 };
        const result = await dial({ openSocket, address, timeoutMs: 5_000 }, options);
        assert.ok("socket" in result, JSON.stringify(result));
        result.socket.resume();
        const [data] = (await once(result.socket, "data")) as [Buffer];
        result.socket.destroy();
        const shown = formatSocketAddress({ ip: parseIp(client), port: 1 }).replace(/1$/, "");
        assert.ok(String(data).startsWith(`app accept=${shown}`), String(data));
      });
    }
  });

  describe("a process of the pod with privileges", () => {
    it("leaves the mesh by the agent's mark: what this rung cannot prevent", async () => {
      await rig.enrol(network.a);
      const line = await a(`
dial("10.1.2.2", 8080, prepare=lambda s: s.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, 0x539))`);
      assert.match(line, / app accept=10.1.1.2:/);
    });

    it("lets nobody in by a mark on the other side of the wire", async () => {
      await rig.enrol(network.b);
      const line = await a(`
dial("10.1.2.2", 8080, prepare=lambda s: s.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, 0x539))`);
      assert.match(line, / inbound ipv4 /);
    });
  });

  it("keeps a client's connection apart from the agent's in its name, port and all", async () => {
    await rig.enrol(network.b);
    const from = `
def bind(s):
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind(("10.1.1.2", 41000))`;
    const program = `${PYTHON}${from}
s = dial("10.1.2.2", 8080, prepare=bind); print("up", flush=True); time.sleep(60)`;
    const captured = network.a.start("/usr/bin/python3", ["-c", program]);
    let output = "";
    captured.stdout?.on("data", (data) => {
      output += data;
    });
    await until("it is captured", () => / inbound ipv4 .*\nup/.test(output));
    // As the agent does it, but for the port, which the kernel would have to choose so by chance.
    const line = await b(`${from}
def speak_for(s):
    s.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, 0x539)
    s.setsockopt(socket.IPPROTO_IP, 19, 1)
    bind(s)
dial("10.1.2.2", 8080, prepare=speak_for)`);
    const ours = ["-Htn", "state", "fin-wait-2", "sport", "=", ":15006"];
    const { stdout } = await network.b.run("ss", ours);
    captured.kill();
    await once(captured, "close");
    assert.match(line, / app accept=10.1.1.2:41000 /);
    assert.match(stdout, /10\.1\.1\.2:41000/, "the client's own has gone on");
  });

  it("refuses what NAT does not lead to the agent, for whatever reason", async () => {
    await rig.enrol(network.a);
    await rig.enrol(network.b);
    for (const [pod, chain] of [
      [network.a, "leave"],
      [network.b, "arrive"],
    ] as const) {
      await pod.run("nft", ["flush", "chain", "inet", "aquifer_v1", chain]);
    }
    const refused = "ECONNREFUSED\nECONNREFUSED";
    assert.equal(await a(`dial("10.1.2.2", 8080); dial("fd00:2::2", 8080)`), refused);
    rig.datapath.forget(uidOf(network.a));
    assert.equal(await a(`dial("10.1.2.2", 8080); dial("fd00:2::2", 8080)`), refused);
  });

  describe("without its agent", () => {
    it("refuses in both directions, and the next agent takes over", async () => {
      await rig.enrol(network.a);
      await rig.enrol(network.b);
      await rig.die();
      const refused = "ECONNREFUSED\nECONNREFUSED";
      assert.equal(await a(`dial("10.1.2.2", 8080); dial("fd00:2::2", 8080)`), refused);
      assert.equal(await b(`dial("10.1.1.2", 9); dial("fd00:1::2", 9)`), refused);
      rig.datapath = rig.open();
      assert.deepEqual(rig.datapath.adopted().toSorted(), [network.a, network.b].map(uidOf));
      assert.equal(await a(`dial("10.1.2.2", 8080)`), "ECONNREFUSED");
      await rig.enrol(network.a);
      assert.match(await a(`dial("10.1.2.2", 8080)`), / original=10.1.2.2:8080$/);
    });

    it("lets a pod go by its record alone", async () => {
      await rig.enrol(network.a);
      assert.notEqual(await traces(network.a), "");
      await rig.die();
      rig.datapath = rig.open();
      rig.datapath.forget(uidOf(network.a));
      assert.equal(await traces(network.a), "");
      assert.match(await a(`dial("10.1.2.2", 8080)`), / app accept=10.1.1.2:/);
      assert.deepEqual(rig.datapath.adopted(), []);
    });
  });

  it("is refused where the pod cannot be captured so", async () => {
    const { netns } = network.a;
    const enrol = (ip: string) => () =>
      rig.datapath.enrol({ uid: "u", netns, addresses: [parseIp(ip)], id: 1 });
    assert.throws(enrol("127.0.0.1"), { code: "REQUEST_REFUSED" });
    assert.equal(await traces(network.a), "");
  });
});
