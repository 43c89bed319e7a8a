import assert from "node:assert/strict";
import { once } from "node:events";
import { openSync } from "node:fs";
import { connect, type Socket } from "node:net";
import { describe, it, type TestContext } from "node:test";
import { Worker } from "node:worker_threads";
import { parseIp, type SocketAddress } from "#core/ip.ts";
import { boundSocket } from "../../test/support/sockets.ts";
import { dialTo, listen, outcomeOf, readAll, until } from "../../test/support/tunnel.ts";
import type { ConnectFailure, Dial, PlainConnection } from "./engine.ts";
import { createHboneEngine } from "./node-engine.ts";

/** An engine with one plain listener. */
function start(
  t: TestContext,
  onConnection: (connection: PlainConnection) => void,
  ip?: "127.0.0.1" | "::1",
) {
  const engine = createHboneEngine();
  t.after(() => engine.close());
  return { engine, listener: engine.listenPlain(boundSocket(ip), onConnection) };
}

function dialListener(t: TestContext, { ip, port }: SocketAddress): Socket {
  const socket = connect({ host: ip, port, allowHalfOpen: true });
  socket.on("error", () => {});
  t.after(() => socket.destroy());
  return socket;
}

/** Of one connection that is to go there. */
async function failureOf(t: TestContext, dial: Dial): Promise<ConnectFailure | undefined> {
  let failure: ConnectFailure | undefined;
  const { listener } = start(t, async (connection) => {
    const result = await connection.connect({ kind: "tcp", dial });
    assert.equal(result.kind, "failed");
    if (result.kind === "failed") failure = result.failure;
    connection.refuse();
  });
  dialListener(t, listener.address);
  await until(() => failure !== undefined, "it has failed");
  return failure;
}

describe("a plain connection", () => {
  for (const ip of ["127.0.0.1", "::1"] as const) {
    it(`knows both of its ends (${ip})`, async (t) => {
      const seen: PlainConnection[] = [];
      const { listener } = start(t, (connection) => seen.push(connection), ip);
      const socket = dialListener(t, listener.address);
      await until(() => seen.length === 1, "it is there");
      assert.deepEqual(seen[0]?.local, { ip, port: listener.address.port });
      assert.deepEqual(seen[0]?.peer, { ip, port: socket.localPort });
      assert.ok((seen[0]?.fd ?? -1) > 2);
    });
  }

  it("is carried to a TCP upstream, with both halves on their own", async (t) => {
    const echo = await listen(t, async (socket) => {
      socket.write("welcome ");
      socket.end(await readAll(socket));
    });
    const { engine, listener } = start(t, (connection) => {
      void connection.connect({ kind: "tcp", dial: dialTo(echo) });
    });
    const socket = dialListener(t, listener.address);
    socket.end("back");
    assert.equal(String(await readAll(socket)), "welcome back");
    await until(() => engine.load().relays === 0, "the relay is over");
  });

  it("shows a reset of either side to the other one", async (t) => {
    const apps: Socket[] = [];
    const app = await listen(t, (socket) => apps.push(socket));
    const { listener } = start(t, (connection) => {
      void connection.connect({ kind: "tcp", dial: dialTo(app) });
    });
    const first = dialListener(t, listener.address);
    await until(() => apps.length === 1, "the first is through");
    apps[0]?.resetAndDestroy();
    assert.equal(await outcomeOf(first), "reset");
    const second = dialListener(t, listener.address);
    await until(() => apps.length === 2, "the second is through");
    second.resetAndDestroy();
    const [, app2] = apps;
    assert.equal(app2 && (await outcomeOf(app2)), "reset");
  });

  it("stops reading where the other side does not read", async (t) => {
    const app = await listen(t, (socket) => socket.pause());
    const { engine, listener } = start(t, (connection) => {
      void connection.connect({ kind: "tcp", dial: dialTo(app) });
    });
    const socket = dialListener(t, listener.address);
    const flood = Buffer.alloc(64 * 1024 * 1024);
    socket.write(flood);
    let written = -1;
    await until(() => {
      const before = written;
      written = socket.bytesWritten - socket.writableLength;
      return before === written && engine.load().relays === 1;
    }, "it has come to a stop");
    assert.ok(process.memoryUsage().arrayBuffers < 2 * flood.length, "the rest is not kept here");
  });

  it("loses nothing that was sent before it was connected, and reads none of it", async (t) => {
    const echo = await listen(t, (socket) => socket.pipe(socket));
    const waiting: PlainConnection[] = [];
    const { listener } = start(t, (connection) => waiting.push(connection));
    const socket = dialListener(t, listener.address);
    socket.end("early bird");
    await until(() => waiting.length === 1, "it is there");
    const nowhere = await closedPort(t);
    const failed = await waiting[0]?.connect({ kind: "tcp", dial: dialTo(nowhere) });
    assert.equal(failed?.kind, "failed");
    const result = await waiting[0]?.connect({ kind: "tcp", dial: dialTo(echo) });
    assert.equal(String(await readAll(socket)), "early bird");
    assert.ok(result?.kind === "connected");
    assert.equal((await result.relay.ended).fromDownstream, "early bird".length);
  });

  it("is reset where it is refused, also with data that nobody has read", async (t) => {
    const { listener } = start(t, (connection) => connection.refuse());
    const socket = dialListener(t, listener.address);
    socket.write("hello");
    assert.equal(await outcomeOf(socket), "reset");
  });

  it("does not mind being refused twice, or after its end", async (t) => {
    const seen: PlainConnection[] = [];
    const { listener } = start(t, (connection) => seen.push(connection));
    const socket = dialListener(t, listener.address);
    await until(() => seen.length === 1, "it is there");
    seen[0]?.refuse();
    seen[0]?.refuse();
    assert.equal(await outcomeOf(socket), "reset");
    seen[0]?.refuse();
  });

  it("cannot be connected twice at a time", async (t) => {
    const app = await listen(t, () => {});
    const seen: PlainConnection[] = [];
    const { listener } = start(t, (connection) => seen.push(connection));
    dialListener(t, listener.address);
    await until(() => seen.length === 1, "it is there");
    const first = seen[0]?.connect({ kind: "tcp", dial: dialTo(app) });
    assert.throws(() => seen[0]?.connect({ kind: "tcp", dial: dialTo(app) }), TypeError);
    assert.equal((await first)?.kind, "connected");
  });
});

describe("Dial", () => {
  it("fails as refused where nobody listens", async (t) => {
    const address = await closedPort(t);
    assert.deepEqual(await failureOf(t, dialTo(address)), {
      kind: "refused",
      reason: `127.0.0.1:${address.port}: ECONNREFUSED`,
    });
  });

  it("fails as unreachable where there is no way", async (t) => {
    // From a loopback address there is none to the outside, so no packet leaves this host.
    const failure = await failureOf(t, dialTo({ ip: parseIp("192.0.2.1"), port: 80 }));
    assert.equal(failure?.kind, "unreachable");
    assert.match(failure?.reason ?? "", /^192\.0\.2\.1:80: E/);
  });

  it("fails as unreachable where the socket is of the other family", async (t) => {
    const failure = await failureOf(t, dialTo({ ip: parseIp("::1"), port: 80 }));
    assert.equal(failure?.kind, "unreachable");
  });

  it("fails as unreachable where there is no socket", async (t) => {
    const address = { ip: parseIp("127.0.0.1"), port: 80 };
    const openSocket = () => {
      throw new Error("Cannot enter the netns: it is gone");
    };
    assert.deepEqual(await failureOf(t, { openSocket, address, timeoutMs: 1_000 }), {
      kind: "unreachable",
      reason: "no socket to reach 127.0.0.1:80: Cannot enter the netns: it is gone",
    });
  });

  it("fails as timed out where nobody answers", async (t) => {
    const address = await deafPort(t);
    assert.deepEqual(await failureOf(t, dialTo(address, 100)), {
      kind: "timedOut",
      reason: `127.0.0.1:${address.port} did not answer within 100 ms`,
    });
  });
});

describe("TunnelEngine.listenPlain()", () => {
  it("refuses a descriptor that is no TCP socket", (t) => {
    const engine = createHboneEngine();
    t.after(() => engine.close());
    const fd = openSync("/dev/null", "r");
    assert.throws(() => engine.listenPlain(fd, () => {}), /Cannot listen on descriptor \d+: not a/);
    assert.equal(engine.load().listeners, 0);
  });
});

/** An address where nobody listens any more. */
async function closedPort(t: TestContext): Promise<SocketAddress> {
  const { listener } = start(t, () => {});
  const { address } = listener;
  listener.abort();
  const probe = connect({ host: address.ip, port: address.port });
  await once(probe, "error");
  return address;
}

/** An address that accepts nothing: its thread is blocked, and its queue is full. */
async function deafPort(t: TestContext): Promise<SocketAddress> {
  const worker = new Worker(
    `const { createServer } = require("node:net");
     const { parentPort } = require("node:worker_threads");
     const server = createServer();
     server.listen({ port: 0, host: "127.0.0.1", backlog: 1 }, () => {
       parentPort.postMessage(server.address().port);
       setImmediate(() => Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0));
     });`,
    { eval: true },
  );
  t.after(() => worker.terminate());
  const [port] = await once(worker, "message");
  const address = { ip: parseIp("127.0.0.1"), port };
  const fillers = Array.from({ length: 8 }, () => dialListener(t, address));
  // Two are taken by the kernel; the rest of them wait, as the one under test will.
  await until(() => fillers.filter((socket) => !socket.connecting).length === 2, "queue is full");
  return address;
}
