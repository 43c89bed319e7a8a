import assert from "node:assert/strict";
import { once } from "node:events";
import { connect, type Socket } from "node:net";
import { describe, it, type TestContext } from "node:test";
import type { SocketAddress } from "#core/ip.ts";
import {
  listen,
  outcomeOf,
  readAll,
  startTunnel,
  type Tunnel,
  until,
} from "../../test/support/tunnel.ts";

/** A connection that has been carried through, and stays open. */
async function openOne(tunnel: Tunnel): Promise<Socket> {
  const socket = await tunnel.connect();
  socket.write("hello");
  await once(socket.resume(), "data");
  return socket;
}

async function finish(socket: Socket): Promise<string> {
  const rest = readAll(socket);
  socket.end("bye");
  return String(await rest);
}

describe("the session pool", () => {
  it("carries one connection after another in one session", async (t) => {
    const tunnel = await startTunnel(t);
    for (let round = 0; round < 5; round++)
      assert.equal(await finish(await openOne(tunnel)), "bye");
    assert.equal(tunnel.server.load().inboundSessions, 1);
    assert.equal(new Set(tunnel.requests.map((request) => request.peer.port)).size, 1);
  });

  it("shares one handshake among all that wait for it", async (t) => {
    const tunnel = await startTunnel(t);
    const sockets = await Promise.all(Array.from({ length: 30 }, () => openOne(tunnel)));
    assert.equal(tunnel.server.load().inboundSessions, 1);
    for (const socket of sockets) assert.equal(await finish(socket), "bye");
  });

  it("shares a failed handshake among all that wait for it", async (t) => {
    let asked = 0;
    const tunnel = await startTunnel(t, {
      serverMaterial: async () => {
        asked++;
        await until(() => tunnel.captured === 10, "all have come");
        throw new Error("no");
      },
    });
    await Promise.all(Array.from({ length: 10 }, () => tunnel.connect()));
    await until(() => tunnel.outcomes.length === 10, "all are decided");
    assert.ok(tunnel.outcomes.every((outcome) => outcome.kind === "failed"));
    assert.equal(asked, 1);
  });

  it("opens another session where one is full, and drops the full one at its end", async (t) => {
    const tunnel = await startTunnel(t, { settings: { streamsPerSessionMax: 3 } });
    const sockets = await Promise.all(Array.from({ length: 7 }, () => openOne(tunnel)));
    assert.equal(tunnel.client.load().outboundSessions, 3);
    for (const socket of sockets) assert.equal(await finish(socket), "bye");
    // Two were full once. The third had a single stream, and stays.
    await until(() => tunnel.client.load().outboundSessions === 1, "full ones are dropped");
    await until(() => tunnel.server.load().inboundSessions === 1, "full ones are dropped");
  });

  it("opens no more streams than the other end allows", async (t) => {
    const tunnel = await startTunnel(t, { serverSettings: { inboundStreamsPerSessionMax: 2 } });
    const sockets = await Promise.all(Array.from({ length: 5 }, () => openOne(tunnel)));
    assert.equal(tunnel.client.load().outboundSessions, 3);
    for (const socket of sockets) assert.equal(await finish(socket), "bye");
  });

  it("fails where the other end allows no stream at all", async (t) => {
    const tunnel = await startTunnel(t, { serverSettings: { inboundStreamsPerSessionMax: 0 } });
    await tunnel.connect();
    await until(() => tunnel.outcomes.length > 0, "it is decided");
    const [outcome] = tunnel.outcomes;
    assert.ok(outcome?.kind === "failed" && outcome.failure.kind === "http2");
    assert.match(outcome.failure.reason, /takes no streams/);
    await until(() => tunnel.client.load().outboundSessions === 0, "the session is dropped");
  });

  it("releases a session that nobody has used for a while", async (t) => {
    const tunnel = await startTunnel(t, { settings: { idleReleaseMs: 60 } });
    const socket = await openOne(tunnel);
    await finish(socket);
    await until(() => tunnel.client.load().outboundSessions === 0, "it is released");
    await until(() => tunnel.server.load().inboundSessions === 0, "it is released");
  });

  it("keeps a session with an open stream, however long it is silent", async (t) => {
    const tunnel = await startTunnel(t, { settings: { idleReleaseMs: 20 } });
    const socket = await openOne(tunnel);
    const closedAtMs = performance.now() + 100;
    await until(() => performance.now() > closedAtMs, "some time passes");
    assert.equal(await finish(socket), "bye");
  });

  it("asks again in a new session where a pooled one turns out to be dead", async (t) => {
    const middle = await startMiddle(t);
    const tunnel = await startTunnel(t, { serverAddress: middle.address });
    middle.target = tunnel.inbound.address;
    await finish(await openOne(tunnel));
    middle.cut();
    // At once: nobody has noticed yet.
    assert.equal(await finish(await openOne(tunnel)), "bye");
  });
});

describe("a session that breaks", () => {
  for (const how of ["cut", "hangUp"] as const) {
    it(`is a reset for both applications, not an end (${how})`, async (t) => {
      let appOutcome: Promise<string> | undefined;
      const app = (socket: Socket) => {
        socket.write("half of it");
        appOutcome = outcomeOf(socket);
      };
      const middle = await startMiddle(t);
      const tunnel = await startTunnel(t, { app, serverAddress: middle.address });
      middle.target = tunnel.inbound.address;
      const socket = await openOne(tunnel);
      const clientOutcome = outcomeOf(socket);
      middle[how]();
      assert.equal(await clientOutcome, "reset");
      assert.equal(await appOutcome, "reset");
      assert.match((await tunnel.clientRelays[0]?.ended)?.error ?? "", /^upstream: connection/);
      assert.match((await tunnel.serverRelays[0]?.ended)?.error ?? "", /^downstream: connection/);
    });
  }

  it("is found out by both ends when PING is not answered", async (t) => {
    let appOutcome: Promise<string> | undefined;
    const app = (socket: Socket) => {
      socket.write("half of it");
      appOutcome = outcomeOf(socket);
    };
    const middle = await startMiddle(t);
    const settings = { pingIntervalMs: 30, pingTimeoutMs: 60 };
    const tunnel = await startTunnel(t, { app, settings, serverAddress: middle.address });
    middle.target = tunnel.inbound.address;
    const socket = await openOne(tunnel);
    const alive = performance.now() + 200;
    await until(() => performance.now() > alive, "some PINGs are answered");
    assert.equal(tunnel.client.load().relays, 1);
    middle.freeze();
    assert.equal(await outcomeOf(socket), "reset");
    assert.equal(await appOutcome, "reset");
    for (const relay of [tunnel.clientRelays[0], tunnel.serverRelays[0]]) {
      assert.match((await relay?.ended)?.error ?? "", /no answer to a PING within 60 ms/);
    }
    await until(() => tunnel.client.load().outboundSessions === 0, "the session is gone");
    await until(() => tunnel.server.load().inboundSessions === 0, "the session is gone");
  });
});

describe("TunnelEngine.drain()", () => {
  it("lets a server's streams go on and opens no new session", async (t) => {
    const tunnel = await startTunnel(t);
    const socket = await openOne(tunnel);
    const drained = tunnel.server.drain(5_000);
    await tunnel.connect();
    await until(() => tunnel.outcomes.length === 2, "the second is decided");
    assert.equal(tunnel.outcomes[1]?.kind, "failed");
    assert.equal(tunnel.server.load().relays, 1);
    assert.equal(await finish(socket), "bye");
    await drained;
    assert.deepEqual(tunnel.server.load(), {
      listeners: 0,
      inboundSessions: 0,
      outboundSessions: 0,
      relays: 0,
    });
  });

  it("moves new connections to another server", async (t) => {
    const middle = await startMiddle(t);
    const old = await startTunnel(t, { serverAddress: middle.address });
    const next = await startTunnel(t);
    middle.target = old.inbound.address;
    const socket = await openOne(old);
    middle.target = next.inbound.address;
    const drained = old.server.drain(5_000);
    // Some of these meet the old session on its way out.
    for (let round = 0; round < 10; round++) assert.equal(await finish(await openOne(old)), "bye");
    assert.ok(next.requests.length > 0);
    assert.equal(await finish(socket), "bye");
    await drained;
  });

  it("lets a client's streams go on and opens no new session", async (t) => {
    const tunnel = await startTunnel(t);
    const socket = await openOne(tunnel);
    const upstream = tunnel.tunnelUpstream();
    const drained = tunnel.client.drain(5_000);
    assert.equal(tunnel.client.load().listeners, 0);
    assert.equal(upstream.kind, "tunnel");
    assert.equal(await finish(socket), "bye");
    await drained;
    assert.equal(tunnel.client.load().outboundSessions, 0);
  });

  it("resets what is left at the limit", async (t) => {
    const tunnel = await startTunnel(t);
    const socket = await openOne(tunnel);
    const outcome = outcomeOf(socket);
    await tunnel.server.drain(50);
    assert.equal(await outcome, "reset");
    const report = await tunnel.serverRelays[0]?.ended;
    assert.equal(report?.error, "did not end within the 50 ms of a drain");
    await until(() => tunnel.server.load().inboundSessions === 0, "sessions are gone");
  });

  it("is over at once where there is nothing", async (t) => {
    const tunnel = await startTunnel(t);
    await tunnel.server.drain(5_000);
    await tunnel.client.drain(5_000);
  });
});

describe("Listener", () => {
  it("says goodbye to its sessions when it is closed", async (t) => {
    const tunnel = await startTunnel(t);
    const socket = await openOne(tunnel);
    tunnel.inbound.close();
    await tunnel.connect();
    await until(() => tunnel.outcomes.length === 2, "the second is decided");
    assert.equal(tunnel.outcomes[1]?.kind, "failed");
    assert.equal(await finish(socket), "bye");
    await until(() => tunnel.server.load().inboundSessions === 0, "the session ends");
  });

  for (const side of ["inbound", "outbound"] as const) {
    it(`resets everything that it accepted when it is aborted (${side})`, async (t) => {
      let appOutcome: Promise<string> | undefined;
      const app = (socket: Socket) => {
        socket.write("hello");
        appOutcome = outcomeOf(socket);
      };
      const tunnel = await startTunnel(t, { app });
      const socket = await openOne(tunnel);
      const outcome = outcomeOf(socket);
      tunnel[side].abort();
      assert.equal(await outcome, "reset");
      assert.equal(await appOutcome, "reset");
      await until(() => tunnel.server.load().relays === 0, "no relay is left");
    });
  }
});

/** A TCP connection's worth of network that can fail. */
interface Middle {
  readonly address: SocketAddress;
  target: SocketAddress | undefined;
  /** Both sides see a reset. */
  cut(): void;
  /** Both sides see a FIN. */
  hangUp(): void;
  /** Nothing passes any more, and nobody is told. */
  freeze(): void;
}

async function startMiddle(t: TestContext): Promise<Middle> {
  const sockets: Socket[] = [];
  const address = await listen(t, (near) => {
    assert.ok(middle.target);
    const far = connect({ host: middle.target.ip, port: middle.target.port, allowHalfOpen: true });
    far.on("error", () => {});
    sockets.push(near, far);
    near.pipe(far);
    far.pipe(near);
  });
  const middle: Middle = {
    address,
    target: undefined,
    cut: () => {
      for (const socket of sockets.splice(0)) socket.resetAndDestroy();
    },
    hangUp: () => {
      for (const socket of sockets) socket.unpipe().end();
    },
    freeze: () => {
      for (const socket of sockets) socket.unpipe().pause();
    },
  };
  t.after(() => middle.cut());
  return middle;
}
