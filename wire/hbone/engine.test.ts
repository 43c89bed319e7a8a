import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import type { Socket } from "node:net";
import { describe, it } from "node:test";
import {
  CLIENT_URI,
  outcomeOf,
  readAll,
  SERVER_URI,
  startTunnel,
  until,
} from "../../test/support/tunnel.ts";

const KIB = 1024;
const MIB = 1024 * KIB;

describe("a tunnelled connection", () => {
  it("carries bytes both ways, unchanged, and counts them", async (t) => {
    const tunnel = await startTunnel(t);
    const sent = randomBytes(3 * MIB + 17);
    const socket = await tunnel.connect();
    socket.end(sent);
    assert.ok((await readAll(socket)).equals(sent));

    const [relay] = tunnel.clientRelays;
    const report = await relay?.ended;
    assert.equal(report?.error, undefined);
    assert.equal(report?.fromDownstream, sent.length);
    assert.equal(report?.toDownstream, sent.length);
    assert.deepEqual((await tunnel.serverRelays[0]?.ended)?.fromDownstream, sent.length);
  });

  it("carries 100 connections at once without mixing them up", async (t) => {
    const tunnel = await startTunnel(t);
    await Promise.all(
      Array.from({ length: 100 }, async () => {
        const sent = randomBytes(200 * KIB);
        const socket = await tunnel.connect();
        socket.end(sent);
        assert.ok((await readAll(socket)).equals(sent));
      }),
    );
    await until(() => tunnel.client.load().relays === 0, "no relay is left");
    await until(() => tunnel.server.load().relays === 0, "no relay is left");
  });

  it("lets the application speak first", async (t) => {
    const tunnel = await startTunnel(t, { app: (socket) => socket.end("220 ready\r\n") });
    const socket = await tunnel.connect();
    assert.equal(String(await readAll(socket)), "220 ready\r\n");
    socket.end();
    assert.equal((await tunnel.clientRelays[0]?.ended)?.error, undefined);
  });

  it("lets the application answer after the client's end", async (t) => {
    const app = async (socket: Socket) => {
      const question = await readAll(socket);
      socket.end(`you said ${question}`);
    };
    const tunnel = await startTunnel(t, { app });
    const socket = await tunnel.connect();
    socket.end("hello");
    assert.equal(String(await readAll(socket)), "you said hello");
  });

  it("lets the client go on after the application's end", async (t) => {
    let heard = "";
    const app = async (socket: Socket) => {
      socket.end("done");
      heard = String(await readAll(socket));
    };
    const tunnel = await startTunnel(t, { app });
    const socket = await tunnel.connect();
    assert.equal(String(await readAll(socket)), "done");
    socket.end("but I am not");
    await until(() => heard === "but I am not", "the application hears the rest");
  });

  it("shows the application's reset to the client", async (t) => {
    const app = (socket: Socket) => {
      socket.write("half of it");
      socket.once("data", () => socket.resetAndDestroy());
    };
    const tunnel = await startTunnel(t, { app });
    const socket = await tunnel.connect();
    await once(socket.resume(), "data");
    socket.write("go on");
    assert.equal(await outcomeOf(socket), "reset");
    assert.match((await tunnel.serverRelays[0]?.ended)?.error ?? "", /^upstream: ECONNRESET/);
    assert.match(
      (await tunnel.clientRelays[0]?.ended)?.error ?? "",
      /^upstream: stream reset: CONNECT_ERROR/,
    );
  });

  it("shows the client's reset to the application", async (t) => {
    let outcome: Promise<string> | undefined;
    const app = (socket: Socket) => {
      socket.write("hello");
      outcome = outcomeOf(socket);
    };
    const tunnel = await startTunnel(t, { app });
    const socket = await tunnel.connect();
    await once(socket.resume(), "data");
    socket.resetAndDestroy();
    await until(() => outcome !== undefined, "the application has a connection");
    assert.equal(await outcome, "reset");
  });

  it("does not stall its siblings when nobody reads from it", async (t) => {
    // 8 stalled streams could have twice the session's window under way.
    const flood = Buffer.alloc(16 * MIB);
    const app = (socket: Socket) => {
      socket.once("data", (first) => {
        if (String(first) === "flood") socket.write(flood);
        else socket.end(first);
      });
    };
    const tunnel = await startTunnel(t, { app });
    const stalled = await Promise.all(Array.from({ length: 8 }, () => tunnel.connect()));
    for (const socket of stalled) socket.write("flood");
    const stalledBytes = () => {
      return tunnel.serverRelays.map((relay) => relay.bytes().toDownstream);
    };
    await until(() => Math.min(...stalledBytes(), stalledBytes().length - 8) >= 0, "all are open");
    let seen: readonly number[] = [];
    await until(() => {
      const before = seen;
      seen = stalledBytes();
      return seen.every((bytes, index) => bytes > 4 * MIB && bytes === before[index]);
    }, "all have come to a stop");
    assert.ok(seen.every((bytes) => bytes < flood.length));

    for (let round = 0; round < 10; round++) {
      const socket = await tunnel.connect();
      socket.end(`sibling ${round}`);
      assert.equal(String(await readAll(socket)), `sibling ${round}`);
    }
    // And a stalled one goes on when it is read at last.
    const [first] = stalled;
    let bytes = 0;
    first?.on("data", (chunk: Buffer) => {
      bytes += chunk.length;
    });
    first?.resume();
    await until(() => bytes === flood.length, "the flood arrives");
  });

  it("is refused with its status also while the session is busy", async (t) => {
    const tunnel = await startTunnel(t, {
      app: (socket) => socket.end(Buffer.alloc(64 * MIB)),
      onRequest: (request) => {
        if (tunnel.requests.length > 1) request.refuse(401);
        else void tunnel.serve(request);
      },
    });
    const flooded = (await tunnel.connect()).resume();
    await once(flooded, "data");
    for (let round = 0; round < 50; round++) await tunnel.connect();
    await until(() => tunnel.outcomes.length === 51, "all are decided");
    for (const outcome of tunnel.outcomes.slice(1)) {
      assert.equal(outcome.kind === "failed" && outcome.failure.status, 401);
    }
  });

  it("tells both ends who the other one is", async (t) => {
    const tunnel = await startTunnel(t);
    const socket = await tunnel.connect();
    socket.end("x");
    await readAll(socket);
    assert.deepEqual(tunnel.requests[0]?.peerUris, [CLIENT_URI]);
    const [outcome] = tunnel.outcomes;
    assert.equal(outcome?.kind, "connected");
    assert.deepEqual(outcome?.kind === "connected" && outcome.peerUris, [SERVER_URI]);
  });
});

describe("Relay.abort()", () => {
  it("resets both sides and gives its reason in the report", async (t) => {
    let outcome: Promise<string> | undefined;
    const app = (socket: Socket) => {
      socket.write("hello");
      outcome = outcomeOf(socket);
    };
    const tunnel = await startTunnel(t, { app });
    const socket = await tunnel.connect();
    await once(socket.resume(), "data");
    tunnel.serverRelays[0]?.abort("policy changed");
    assert.equal(await outcomeOf(socket), "reset");
    assert.equal(await outcome, "reset");
    assert.equal((await tunnel.serverRelays[0]?.ended)?.error, "policy changed");
  });
});
