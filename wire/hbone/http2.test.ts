/**
 * Either end of the engine against a bare node:http2, as another implementation would see it.
 */
import assert from "node:assert/strict";
import { once } from "node:events";
import {
  type ClientHttp2Session,
  type ClientHttp2Stream,
  connect,
  constants,
  createSecureServer,
  type IncomingHttpHeaders,
  type OutgoingHttpHeaders,
  type ServerHttp2Session,
  type ServerHttp2Stream,
} from "node:http2";
import { type AddressInfo, connect as connectTcp, type Socket } from "node:net";
import { describe, it, type TestContext } from "node:test";
import { parseIp, type SocketAddress } from "#core/ip.ts";
import { boundSocket } from "../../test/support/sockets.ts";
import {
  dialTo,
  listen,
  outcomeOf,
  readAll,
  startTunnel,
  type Tunnel,
  testMaterials,
  until,
} from "../../test/support/tunnel.ts";
import { createHboneEngine } from "./node-engine.ts";

const { NGHTTP2_NO_ERROR, NGHTTP2_CANCEL, NGHTTP2_INTERNAL_ERROR, NGHTTP2_CONNECT_ERROR } =
  constants;
const MIB = 1024 * 1024;

describe("the server's end", () => {
  it("says what it allows", async (t) => {
    const { session } = await bareClient(t, await startTunnel(t));
    if (session.remoteSettings.maxConcurrentStreams !== 200) await once(session, "remoteSettings");
    const { remoteSettings } = session;
    assert.equal(remoteSettings.initialWindowSize, 4 * MIB);
    assert.equal(remoteSettings.maxFrameSize, MIB);
    assert.equal(remoteSettings.maxHeaderListSize, 64 * 1024);
    assert.equal(remoteSettings.maxConcurrentStreams, 200);
    assert.equal(remoteSettings.enableConnectProtocol, false);
    await until(() => session.state.remoteWindowSize === 16 * MIB, "the window is open");
  });

  it("hands over what was asked for", async (t) => {
    const tunnel = await startTunnel(t);
    const client = await bareClient(t, tunnel);
    const { stream, status } = client.request({
      ":method": "CONNECT",
      ":authority": "[fd00::5]:80",
      baggage: ["k8s.pod.name=a", "service.name=b"],
      forwarded: 'for="10.0.0.1:4711"',
    });
    assert.equal(await status, 200);
    const [request] = tunnel.requests;
    assert.equal(request?.method, "CONNECT");
    assert.equal(request?.authority, "[fd00::5]:80");
    assert.equal(request?.headers.get("baggage"), "k8s.pod.name=a, service.name=b");
    assert.equal(request?.headers.get("forwarded"), 'for="10.0.0.1:4711"');
    assert.equal(request?.headers.has(":authority"), false);
    assert.deepEqual(request?.local, tunnel.inbound.address);
    stream.close();
  });

  it("answers 200 with headers, after the upstream has accepted", async (t) => {
    const tunnel = await startTunnel(t, {
      onRequest: (request) => {
        request.responseHeaders = new Map([["baggage", "k8s.pod.name=stock"]]);
        void tunnel.serve(request);
      },
    });
    const { headers, stream } = (await bareClient(t, tunnel)).connect();
    assert.equal((await headers)["baggage"], "k8s.pod.name=stock");
    stream.close();
  });

  it("answers no 200 where the upstream does not accept", async (t) => {
    const nowhere = await closedPort(t);
    const failures: unknown[] = [];
    const tunnel = await startTunnel(t, {
      onRequest: async (request) => {
        const result = await request.connect({ kind: "tcp", dial: dialTo(nowhere) });
        failures.push(result.kind === "failed" && result.failure.kind);
        request.refuse(503);
      },
    });
    const { status, stream } = (await bareClient(t, tunnel)).connect();
    assert.equal(await status, 503);
    assert.deepEqual(failures, ["refused"]);
    // It does not end its half, so that the server does at last.
    await until(() => stream.closed, "the stream is over");
    assert.equal(stream.rstCode, NGHTTP2_NO_ERROR);
  });

  it("tries another upstream after one has failed", async (t) => {
    const nowhere = await closedPort(t);
    const tunnel = await startTunnel(t, {
      onRequest: async (request) => {
        await request.connect({ kind: "tcp", dial: dialTo(nowhere) });
        await tunnel.serve(request);
      },
    });
    const { stream } = (await bareClient(t, tunnel)).connect();
    stream.end("hello");
    assert.equal(String(await readAll(stream)), "hello");
  });

  for (const status of [400, 401, 503]) {
    it(`refuses with ${status} and nothing else`, async (t) => {
      const tunnel = await startTunnel(t, { onRequest: (request) => request.refuse(status) });
      const { stream, headers } = (await bareClient(t, tunnel)).connect();
      assert.equal((await headers)[":status"], status);
      assert.equal(String(await readAll(stream)), "");
      stream.end();
      await until(() => stream.closed, "the stream is over");
      assert.equal(stream.rstCode, NGHTTP2_NO_ERROR);
    });
  }

  it("hands over what is not a CONNECT, so that it can be refused", async (t) => {
    const tunnel = await startTunnel(t, {
      onRequest: (request) => request.refuse(request.method === "CONNECT" ? 200 : 400),
    });
    const client = await bareClient(t, tunnel);
    for (const method of ["GET", "POST"]) {
      const { status, stream } = client.request({ ":method": method, ":path": "/" });
      stream.end();
      assert.equal(await status, 400);
    }
    assert.equal(tunnel.requests[0]?.method, "GET");
  });

  for (const [name, code, expected] of [
    ["NO_ERROR", NGHTTP2_NO_ERROR, "ended"],
    ["CANCEL", NGHTTP2_CANCEL, "ended"],
    ["INTERNAL_ERROR", NGHTTP2_INTERNAL_ERROR, "reset"],
    ["CONNECT_ERROR", NGHTTP2_CONNECT_ERROR, "reset"],
  ] as const) {
    it(`lets the application see RST_STREAM ${name} as: ${expected}`, async (t) => {
      let outcome: Promise<string> | undefined;
      const app = (socket: Socket) => {
        socket.write("hello");
        outcome = outcomeOf(socket);
      };
      const tunnel = await startTunnel(t, { app });
      const { stream } = (await bareClient(t, tunnel)).connect();
      await once(stream, "data");
      resetOnly(stream, code);
      assert.equal(await outcome, expected);
      await until(() => tunnel.server.load().relays === 0, "the relay is over");
      const error = (await tunnel.serverRelays[0]?.ended)?.error;
      assert.equal(error, expected === "reset" ? `downstream: stream reset: ${name}` : undefined);
    });
  }

  it("sends RST_STREAM for the application's reset, and no END_STREAM before it", async (t) => {
    const app = (socket: Socket) => {
      socket.write("half of it");
      socket.once("data", () => socket.resetAndDestroy());
    };
    const { stream } = (await bareClient(t, await startTunnel(t, { app }))).connect();
    let hasEnded = false;
    stream.on("end", () => {
      hasEnded = true;
    });
    await once(stream, "data");
    stream.write("go on");
    await until(() => stream.destroyed, "the stream is over");
    assert.equal(stream.rstCode, NGHTTP2_CONNECT_ERROR);
    assert.equal(hasEnded, false);
  });

  it("gives up connecting for a peer that has gone away", async (t) => {
    const outcomes: unknown[] = [];
    const silent = await listen(t, () => {});
    const tunnel = await startTunnel(t, {
      onRequest: async (request) => {
        // A session that never comes about, so that the attempt is still under way.
        const upstream = tunnel.tunnelUpstream();
        if (upstream.kind !== "tunnel") return;
        const session = { ...upstream.session, key: "silent", dial: dialTo(silent) };
        const result = await request.connect({ ...upstream, session });
        outcomes.push(result.kind === "failed" && result.failure.kind);
        request.refuse(503);
      },
    });
    const { stream } = (await bareClient(t, tunnel)).connect();
    await until(() => tunnel.requests.length === 1, "the request is there");
    stream.close(NGHTTP2_CANCEL);
    await until(() => outcomes.length === 1, "the attempt is over");
    assert.deepEqual(outcomes, ["downstreamClosed"]);
    // Nothing is connected to it later either.
    const [request] = tunnel.requests;
    const late = await request?.connect({ kind: "tcp", dial: dialTo(tunnel.appAddress) });
    assert.equal(late?.kind === "failed" && late.failure.kind, "downstreamClosed");
  });

  it("answers PING while a stream is stalled", async (t) => {
    const app = (socket: Socket) => socket.pause().write(Buffer.alloc(32 * MIB));
    const tunnel = await startTunnel(t, { app });
    const { session, connect: open } = await bareClient(t, tunnel);
    const { stream, status } = open();
    stream.pause();
    await status;
    stream.write(Buffer.alloc(32 * MIB));
    let isAnswered = false;
    session.ping((error) => {
      isAnswered = error === null;
    });
    await until(() => isAnswered, "the PING is answered");
  });
});

describe("the client's end", () => {
  it("says what it allows, and sends a plain CONNECT", async (t) => {
    const server = await bareServer(t, (stream) => stream.respond({ ":status": 200 }));
    const tunnel = await startTunnel(t, { serverAddress: server.address });
    await tunnel.connect();
    await until(() => tunnel.outcomes.length === 1, "it is decided");
    const [session] = server.sessions;
    const settings = session?.remoteSettings;
    assert.equal(settings?.initialWindowSize, 4 * MIB);
    assert.equal(settings?.maxFrameSize, MIB);
    assert.equal(settings?.maxHeaderListSize, 16 * 1024);
    assert.equal(settings?.enablePush, false);
    await until(() => session?.state.remoteWindowSize === 16 * MIB, "the window is open");
    const [headers] = server.requests;
    assert.equal(headers?.[":method"], "CONNECT");
    assert.equal(headers?.[":authority"], "10.1.2.3:80");
    assert.equal(headers?.["baggage"], "k8s.pod.name=cart");
    assert.deepEqual(Object.keys(headers ?? {}).sort(), [":authority", ":method", "baggage"]);
  });

  it("hands over the headers of the 200", async (t) => {
    const answer = { ":status": 200, baggage: "k8s.pod.name=stock" };
    const server = await bareServer(t, (stream) => stream.respond(answer));
    const tunnel = await startTunnel(t, { serverAddress: server.address });
    await tunnel.connect();
    await until(() => tunnel.outcomes.length === 1, "it is decided");
    const [outcome] = tunnel.outcomes;
    assert.ok(outcome?.kind === "connected");
    assert.equal(outcome.responseHeaders.get("baggage"), "k8s.pod.name=stock");
    assert.equal(outcome.responseHeaders.has(":status"), false);
  });

  for (const status of [204, 301, 401, 503]) {
    it(`takes ${status} for a refusal`, async (t) => {
      const server = await bareServer(t, (stream) => {
        stream.respond({ ":status": status }, { endStream: true });
      });
      const tunnel = await startTunnel(t, { serverAddress: server.address });
      await tunnel.connect();
      await until(() => tunnel.outcomes.length === 1, "it is decided");
      assert.deepEqual(tunnel.outcomes[0], {
        kind: "failed",
        failure: { kind: "status", reason: `the other end answered ${status}`, status },
      });
    });
  }

  for (const [name, code, expected] of [
    ["NO_ERROR", NGHTTP2_NO_ERROR, "ended"],
    ["CANCEL", NGHTTP2_CANCEL, "ended"],
    ["INTERNAL_ERROR", NGHTTP2_INTERNAL_ERROR, "reset"],
  ] as const) {
    it(`lets the application see RST_STREAM ${name} as: ${expected}`, async (t) => {
      const server = await bareServer(t, (stream) => {
        stream.respond({ ":status": 200 });
        stream.once("data", () => resetOnly(stream, code));
      });
      const tunnel = await startTunnel(t, { serverAddress: server.address });
      const socket = await tunnel.connect();
      socket.write("hello");
      assert.equal(await outcomeOf(socket), expected);
    });
  }

  it("sends RST_STREAM for the application's reset, and no END_STREAM before it", async (t) => {
    const streams: ServerHttp2Stream[] = [];
    let hasEnded = false;
    const server = await bareServer(t, (stream) => {
      streams.push(stream);
      stream.respond({ ":status": 200 });
      stream.on("end", () => {
        hasEnded = true;
      });
      stream.write("hello");
      stream.resume();
    });
    const tunnel = await startTunnel(t, { serverAddress: server.address });
    const socket = await tunnel.connect();
    await once(socket.resume(), "data");
    socket.resetAndDestroy();
    await until(() => streams[0]?.destroyed === true, "the stream is over");
    assert.equal(streams[0]?.rstCode, NGHTTP2_CONNECT_ERROR);
    assert.equal(hasEnded, false);
  });

  // Node drops what it has received of a cancelled stream and not handed over yet.
  it("lets the application see CANCEL as a reset where data was lost by it", async (t) => {
    const streams: ServerHttp2Stream[] = [];
    const server = await bareServer(t, (stream) => {
      streams.push(stream);
      stream.respond({ ":status": 200 });
      stream.write(Buffer.alloc(64 * MIB));
    });
    const tunnel = await startTunnel(t, { serverAddress: server.address });
    const socket = await tunnel.connect();
    let seen = 0;
    await until(() => {
      const before = seen;
      seen = tunnel.clientRelays[0]?.bytes().toDownstream ?? 0;
      return seen > MIB && seen === before;
    }, "it has come to a stop");
    const [stream] = streams;
    assert.ok(stream);
    resetOnly(stream, NGHTTP2_CANCEL);
    assert.equal(await outcomeOf(socket), "reset");
  });

  for (const how of ["a reset", "the end of the session"] as const) {
    it(`sees ${how} right behind the 200`, async (t) => {
      const server = await bareServer(t, (stream) => {
        stream.respond({ ":status": 200 });
        if (how === "a reset") resetOnly(stream, NGHTTP2_INTERNAL_ERROR);
        else setImmediate(() => stream.session?.destroy());
      });
      const tunnel = await startTunnel(t, { serverAddress: server.address });
      for (let round = 1; round <= 20; round++) {
        assert.equal(await outcomeOf(await tunnel.connect()), "reset");
        await until(() => tunnel.outcomes.length === round, "it is decided");
      }
      await until(() => tunnel.client.load().relays === 0, "no relay is left");
    });
  }

  it("is not harmed by headers that cannot be sent", async (t) => {
    const tunnel = await startTunnel(t, { settings: { streamsPerSessionMax: 2 } });
    const upstream = tunnel.tunnelUpstream();
    assert.ok(upstream.kind === "tunnel");
    const request = { ...upstream.request, headers: new Map([["connection", "close"]]) };
    const engine = createHboneEngine({ streamsPerSessionMax: 2 });
    t.after(() => engine.close());
    const problems: unknown[] = [];
    const listener = engine.listenPlain(boundSocket(), (connection) => {
      connection.connect({ ...upstream, request }).catch((error: unknown) => {
        problems.push(error);
        connection.refuse();
      });
    });
    for (let round = 0; round < 5; round++) {
      const { ip, port } = listener.address;
      assert.equal(await outcomeOf(connectTcp({ host: ip, port })), "reset");
    }
    assert.equal(problems.length, 5);
    assert.ok(problems.every((problem) => problem instanceof TypeError));
    assert.equal(tunnel.requests.length, 0);
  });

  it("does not wait for an answer longer than it was told to", async (t) => {
    const streams: ServerHttp2Stream[] = [];
    const server = await bareServer(t, (stream) => streams.push(stream));
    const settings = { answerTimeoutMs: 50 };
    const tunnel = await startTunnel(t, { serverAddress: server.address, settings });
    await tunnel.connect();
    await until(() => tunnel.outcomes.length === 1, "it is decided");
    const [outcome] = tunnel.outcomes;
    assert.ok(outcome?.kind === "failed" && outcome.failure.kind === "timedOut");
    await until(() => streams[0]?.rstCode === NGHTTP2_CANCEL, "the stream is given up");
  });

  it("asks again in a new session where a pooled one refuses the stream", async (t) => {
    let count = 0;
    const server = await bareServer(t, (stream) => {
      if (++count === 2) stream.close(constants.NGHTTP2_REFUSED_STREAM);
      else stream.respond({ ":status": 200 });
    });
    const tunnel = await startTunnel(t, { serverAddress: server.address });
    await tunnel.connect();
    await until(() => tunnel.outcomes.length === 1, "the first is decided");
    await tunnel.connect();
    await until(() => tunnel.outcomes.length === 2, "the second is decided");
    assert.equal(tunnel.outcomes[1]?.kind, "connected");
    assert.equal(server.sessions.length, 2);
  });

  it("does not ask again where a new session refuses the stream", async (t) => {
    const server = await bareServer(t, (stream) => stream.close(constants.NGHTTP2_REFUSED_STREAM));
    const tunnel = await startTunnel(t, { serverAddress: server.address });
    await tunnel.connect();
    await until(() => tunnel.outcomes.length === 1, "it is decided");
    const [outcome] = tunnel.outcomes;
    assert.ok(outcome?.kind === "failed" && outcome.failure.kind === "http2");
    assert.equal(outcome.failure.reason, "stream refused: REFUSED_STREAM");
    assert.equal(server.requests.length, 1);
  });

  it("opens no more streams after a GOAWAY, and goes on with those that are open", async (t) => {
    const server = await bareServer(t, (stream) => {
      stream.respond({ ":status": 200 });
      stream.pipe(stream);
    });
    const tunnel = await startTunnel(t, { serverAddress: server.address });
    const first = await tunnel.connect();
    first.write("a");
    await once(first.resume(), "data");
    server.sessions[0]?.close();
    const second = await tunnel.connect();
    second.end("b");
    assert.equal(String(await readAll(second)), "b");
    assert.equal(server.sessions.length, 2);
    first.end("c");
    assert.equal(String(await readAll(first)), "c");
    await until(() => tunnel.client.load().outboundSessions === 1, "the first session ends");
  });
});

/** As another implementation sends it: Node itself ends the stream first. */
function resetOnly(stream: ClientHttp2Stream | ServerHttp2Stream, code: number): void {
  stream._final = (callback) => callback();
  stream.close(code);
}

interface BareRequest {
  readonly stream: ClientHttp2Stream;
  readonly headers: Promise<IncomingHttpHeaders>;
  readonly status: Promise<number>;
}

interface BareClient {
  readonly session: ClientHttp2Session;
  request(headers: OutgoingHttpHeaders): BareRequest;
  connect(): BareRequest;
}

async function bareClient(t: TestContext, tunnel: Tunnel): Promise<BareClient> {
  const { client } = await testMaterials();
  const { ip, port } = tunnel.inbound.address;
  const session = connect(`https://${ip}:${port}`, {
    cert: client.certificateChainPem,
    key: client.privateKeyPem,
    ca: client.rootsPem,
    checkServerIdentity: () => undefined,
  });
  session.on("error", () => {});
  t.after(() => session.destroy());
  await once(session, "connect");
  const request = (wanted: OutgoingHttpHeaders): BareRequest => {
    const stream = session.request(wanted, { endStream: false });
    stream.on("error", () => {});
    const headers = once(stream, "response").then(([received]): IncomingHttpHeaders => received);
    // Not every test waits for the answer.
    headers.catch(() => {});
    const status = headers.then((received) => Number(received[":status"]));
    status.catch(() => {});
    return { stream, headers, status };
  };
  const connectOne = () => request({ ":method": "CONNECT", ":authority": "10.1.2.3:80" });
  return { session, request, connect: connectOne };
}

interface BareServer {
  readonly address: SocketAddress;
  readonly sessions: ServerHttp2Session[];
  readonly requests: IncomingHttpHeaders[];
}

async function bareServer(
  t: TestContext,
  onStream: (stream: ServerHttp2Stream) => void,
): Promise<BareServer> {
  const { server: material } = await testMaterials();
  const sessions: ServerHttp2Session[] = [];
  const requests: IncomingHttpHeaders[] = [];
  const server = createSecureServer({
    cert: material.certificateChainPem,
    key: material.privateKeyPem,
    ca: material.rootsPem,
    requestCert: true,
  });
  server.on("session", (session) => sessions.push(session));
  server.on("stream", (stream, headers) => {
    requests.push(headers);
    stream.on("error", () => {});
    // Node's type of the event does not know which end this is.
    onStream(stream as ServerHttp2Stream);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  t.after(() => {
    server.close();
    for (const session of sessions) session.destroy();
  });
  // A TCP server has a port.
  const { port } = server.address() as AddressInfo;
  return { address: { ip: parseIp("127.0.0.1"), port }, sessions, requests };
}

/** An address where nobody listens any more. */
async function closedPort(t: TestContext): Promise<SocketAddress> {
  const tunnel = await startTunnel(t);
  tunnel.inbound.abort();
  return tunnel.inbound.address;
}
