import assert from "node:assert/strict";
import { once } from "node:events";
import net from "node:net";
import { after, before, describe, it } from "node:test";
import { parseIp, type SocketAddress } from "#core/ip.ts";
import { until } from "../support/kernel.ts";
import { makeNetwork, type TestNetwork } from "../support/netns.ts";
import { type EnrolledPod, endOf, PYTHON, Rig } from "./rig.ts";

describe("inbound capture", () => {
  let network: TestNetwork;
  let rig: Rig;
  let pod: EnrolledPod;

  before(async () => {
    network = makeNetwork("in");
    rig = new Rig(network);
    pod = await rig.enrol(network.b);
  });
  after(async () => {
    await rig?.close();
    network?.close();
  });

  const client = (program: string) => network.a.python(PYTHON + program);

  for (const [kind, dialled, slot, peer, local] of [
    ["IPv4", "10.1.2.2", "in4", "10.1.1.2", "10.1.2.2"],
    ["IPv6", "fd00:2::2", "in6", "[fd00:1::2]", "[fd00:2::2]"],
    ["mapped", "::ffff:10.1.2.2", "in4", "10.1.1.2", "10.1.2.2"],
  ] as const) {
    it(`hands any port to the agent, with both real ends (${kind})`, async () => {
      const lines = await client(`for port in (1, 8080, 65535): dial("${dialled}", port)`);
      for (const [index, line] of lines.split("\n").entries()) {
        const [, port] = /^name=\S+:(\d+) /.exec(line) ?? [];
        const told = `${slot} peer=${peer}:${port} local=${local}:${[1, 8080, 65535][index]}`;
        assert.ok(line.endsWith(` ${told} original=none`), line);
      }
      assert.equal(lines.split("\n").length, 3);
    });
  }

  it("hands tunnels to their own listener", async () => {
    assert.match(await client(`dial("10.1.2.2", 15008)`), / hbone4 .* local=10.1.2.2:15008 /);
    assert.match(await client(`dial("fd00:2::2", 15008)`), / hbone6 /);
  });

  it("names no destination for a stranger who dials the outbound listener", async () => {
    assert.match(await client(`dial("10.1.2.2", 15001)`), / out4 .* original=none$/);
  });

  it("does not give an application the connections, though it listens there", async () => {
    const app = network.b.start("/usr/bin/python3", [
      "-c",
      `${PYTHON}serve("10.1.2.2", 8080, 99); print("up", flush=True); time.sleep(60)`,
    ]);
    if (app.stdout) await once(app.stdout, "data");
    assert.match(await client(`dial("10.1.2.2", 8080)`), / in4 /);
    app.kill();
    await once(app, "close");
  });

  it("lets an application listen where connections of the agent are open", async () => {
    const captured = network.a.start("/usr/bin/python3", [
      "-c",
      `${PYTHON}
s = socket.create_connection(("10.1.2.2", 8086)); text(s); print("up", flush=True); time.sleep(60)`,
    ]);
    if (captured.stdout) await once(captured.stdout, "data");
    const line = await network.b.python(`${PYTHON}serve("0.0.0.0", 8086); dial("10.1.2.2", 8086)`);
    assert.match(line, / app accept=/);
    captured.kill();
    await once(captured, "close");
  });

  it("does not let an application join the agent's listener", async () => {
    const address = pod.servers[0]?.address();
    assert.ok(address && typeof address === "object");
    const line = await network.b.python(`${PYTHON}
for option in (socket.SO_REUSEPORT, socket.SO_REUSEADDR):
    for host in ("127.0.0.1", "0.0.0.0"):
        s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, option, 1)
        try: s.bind((host, ${address.port})); s.listen(1); print("joined")
        except OSError as error: print(errno.errorcode[error.errno])`);
    assert.deepEqual(line.split("\n"), new Array(4).fill("EADDRINUSE"));
  });

  it("loses nothing while listeners are exchanged", async () => {
    const load = network.a.start("/usr/bin/python3", [
      "-c",
      `${PYTHON}
import signal
running, answered = True, 0
def stop(*_):
    global running
    running = False
signal.signal(signal.SIGTERM, stop)
print("up", flush=True)
while running:
    s = socket.create_connection(("10.1.2.2", 80), 5)
    assert " peer=10.1.1.2:" in text(s)
    s.close(); answered += 1
print("many" if answered > 100 else answered)`,
    ]);
    let output = "";
    load.stdout?.on("data", (data) => {
      output += data;
    });
    load.stderr?.pipe(process.stderr);
    await until("the load runs", () => output.includes("up"));
    for (let exchange = 0; exchange < 50; exchange++) {
      const { inPlaintext } = rig.datapath.counters();
      await rig.listen(network.b.netns, pod.capture);
      await until("it has been used", () => rig.datapath.counters().inPlaintext > inPlaintext + 2);
    }
    load.kill("SIGTERM");
    await once(load, "close");
    assert.equal(output, "up\nmany\n");
  });

  it("leaves the pod alone once it is un-enrolled, but not what it had captured", async () => {
    const capture = rig.datapath.enrol({
      uid: "passing",
      netns: network.a.netns,
      addresses: [network.a.ip4],
      id: 2,
    });
    const held: net.Socket[] = [];
    const fd = network.a.netns.listen({ ip: parseIp("127.0.0.1"), port: 0, backlog: 8 });
    await rig.serve(fd, (socket) => held.push(socket));
    capture.setListeners({ in4: fd });
    const program = `${PYTHON}
serve("10.1.1.2", 8087)
s = socket.create_connection(("10.1.1.2", 8087)); text(s)
print("up", flush=True); time.sleep(60)`;
    const app = network.a.start("/usr/bin/python3", ["-c", program]);
    if (app.stdout) await once(app.stdout, "data");
    const before = network.b.netns.openSocket({ family: "ipv4" });
    rig.datapath.markAgentSocket(before);
    const socket = connect(before, { ip: network.a.ip4, port: 8087 });
    await once(socket, "connect");
    await until("the agent has it", () => held.length === 1);

    capture.remove();
    held[0]?.write("still here");
    assert.equal(String(await once(socket, "data")), "still here");
    socket.destroy();
    app.kill();
    await once(app, "close");
  });
});

describe("real client address", () => {
  let network: TestNetwork;
  let rig: Rig;

  before(async () => {
    network = makeNetwork("peer");
    rig = new Rig(network);
    await rig.enrol(network.b);
  });
  after(async () => {
    await rig?.close();
    network?.close();
  });

  const V6_ONLY = "lambda s: s.setsockopt(41, 26, 1)";
  for (const { app, local, bind, to, shown, expected } of [
    {
      app: `serve("0.0.0.0", 9000)`,
      local: "IPv4",
      bind: "127.0.0.6",
      to: "10.1.2.2",
      shown: "10.1.1.2",
      expected: "10.1.1.2:4242",
    },
    {
      app: `serve("::", 9000)`,
      local: "mapped",
      bind: "127.0.0.6",
      to: "10.1.2.2",
      shown: "10.1.1.2",
      expected: "[::ffff:10.1.1.2]:4242",
    },
    {
      app: `serve("::", 9000, 1, ${V6_ONLY})`,
      local: "IPv6",
      bind: "::1",
      to: "fd00:2::2",
      shown: "fd00:1::2",
      expected: "[fd00:1::2]:4242",
    },
  ]) {
    it(`is what accept() and getpeername() tell an application (${local})`, async () => {
      const program = `${PYTHON}server = ${app}; print("up", flush=True); time.sleep(60)`;
      const child = network.b.start("/usr/bin/python3", ["-c", program]);
      if (child.stdout) await once(child.stdout, "data");

      const family = to.includes(":") ? "ipv6" : "ipv4";
      const fd = network.b.netns.openSocket({ family, bind: parseIp(bind) });
      rig.datapath.markAgentSocket(fd, { ip: parseIp(shown), port: 4242 });
      const socket = connect(fd, { ip: parseIp(to), port: 9000 });
      const [data] = await once(socket, "data");
      assert.equal(String(data).trim(), `app accept=${expected} peer=${expected}`);
      // The agent itself is told the truth.
      assert.equal(endOf(socket.remoteAddress, socket.remotePort), endOf(to, 9000));
      assert.equal(socket.localAddress, bind);
      socket.destroy();
      child.kill();
      await once(child, "close");
      await until("nothing is in transit", () => rig.handoffEntries() === 0);
    });
  }

  it("stays the agent's where there is no client to show", async () => {
    const program = `${PYTHON}server = serve("0.0.0.0", 9001); print("up", flush=True); time.sleep(60)`;
    const child = network.b.start("/usr/bin/python3", ["-c", program]);
    if (child.stdout) await once(child.stdout, "data");
    const fd = network.b.netns.openSocket({ family: "ipv4", bind: parseIp("127.0.0.6") });
    rig.datapath.markAgentSocket(fd);
    const socket = connect(fd, { ip: network.b.ip4, port: 9001 });
    const [data] = await once(socket, "data");
    assert.match(String(data), /^app accept=127.0.0.6:\d+ peer=127.0.0.6:/);
    socket.destroy();
    child.kill();
    await once(child, "close");
  });

  it("lets a marked socket of the agent leave the pod, to wherever", async () => {
    const server = network.a.start("/usr/bin/python3", [
      "-c",
      `${PYTHON}server = serve("10.1.1.2", 15008); print("up", flush=True); time.sleep(60)`,
    ]);
    if (server.stdout) await once(server.stdout, "data");
    const before = rig.datapath.counters();
    const fd = network.b.netns.openSocket({ family: "ipv4" });
    rig.datapath.markAgentSocket(fd);
    const socket = connect(fd, { ip: network.a.ip4, port: 15008 });
    const [data] = await once(socket, "data");
    assert.match(String(data), /^app accept=10.1.2.2:/);
    const after = rig.datapath.counters();
    assert.equal(after.agentsOwn - before.agentsOwn, 1);
    assert.equal(after.captured, before.captured);
    socket.destroy();
    server.kill();
    await once(server, "close");
  });
});

/** Connects a socket that `Netns.openSocket()` made. */
function connect(fd: number, to: SocketAddress): net.Socket {
  // `manualStart` is Node's own word for "do not read yet"; its types leave it out.
  const options: net.SocketConstructorOpts & { manualStart: boolean } = { fd, manualStart: true };
  return new net.Socket(options).connect({ host: to.ip, port: to.port });
}
