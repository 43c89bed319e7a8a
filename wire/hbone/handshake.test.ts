import assert from "node:assert/strict";
import { once } from "node:events";
import { createConnection, type Socket } from "node:net";
import { describe, it, type TestContext } from "node:test";
import {
  type ConnectionOptions,
  createServer,
  type TLSSocket,
  connect as tlsConnect,
} from "node:tls";
import type { SocketAddress } from "#core/ip.ts";
import { parseSpiffeId } from "#core/spiffe-id.ts";
import { TestAuthority } from "../../test/support/certificates.ts";
import {
  CLIENT_URI,
  listen,
  readAll,
  SERVER_URI,
  startTunnel,
  type Tunnel,
  testMaterials,
  until,
} from "../../test/support/tunnel.ts";
import { refusePeerOutside, refusePeerUnlessOneOf } from "../tls/refuse.ts";
import { InboundHandshakes } from "./handshake.ts";
import { DEFAULT_HBONE_SETTINGS } from "./settings.ts";

const HOUR_MS = 3_600_000;

/** What became of one connection, through both engines. */
async function outcomeOfOne(tunnel: Tunnel) {
  await tunnel.connect();
  await until(() => tunnel.outcomes.length > 0, "the connection is decided");
  const [outcome] = tunnel.outcomes;
  return outcome?.kind === "failed" ? outcome.failure : outcome?.kind;
}

async function expired() {
  const { authority } = await testMaterials();
  const notAfterMs = Date.now() - 60_000;
  const uris = [CLIENT_URI];
  return authority.material({ uris, notBeforeMs: notAfterMs - HOUR_MS, notAfterMs });
}

async function foreign() {
  const elsewhere = await TestAuthority.create("Elsewhere");
  const { authority } = await testMaterials();
  const material = await elsewhere.material({ uris: [CLIENT_URI] });
  return { ...material, rootsPem: authority.rootPem };
}

describe("a tunnel listener", () => {
  const cases = [
    ["an expired certificate", expired, /cart" has expired/],
    ["a certificate of a foreign root", foreign, /cart" was not issued by a root that is trusted/],
  ] as const;
  for (const [name, makeMaterial, reason] of cases) {
    it(`refuses ${name}, and says so`, async (t) => {
      const tunnel = await startTunnel(t, { clientMaterial: await makeMaterial() });
      const failure = await outcomeOfOne(tunnel);
      assert.ok(typeof failure === "object");
      assert.equal(failure.kind, "tls");
      assert.match(failure.reason, /it may refuse our certificate/);
      await until(() => tunnel.failures.length > 0, "the failure is reported");
      assert.match(tunnel.failures[0]?.reason ?? "", reason);
      assert.equal(tunnel.requests.length, 0);
    });
  }

  it("refuses a certificate whose identity it does not want, and says so", async (t) => {
    const { authority } = await testMaterials();
    const uris = ["spiffe://elsewhere.org/ns/shop/sa/cart"];
    const tunnel = await startTunnel(t, {
      clientMaterial: await authority.material({ uris }),
      refuseClient: refusePeerOutside("cluster.local"),
    });
    const failure = await outcomeOfOne(tunnel);
    assert.ok(typeof failure === "object" && failure.kind === "tls");
    await until(() => tunnel.failures.length > 0, "the failure is reported");
    assert.match(tunnel.failures[0]?.reason ?? "", /elsewhere\.org.*"cluster\.local"/);
    assert.equal(tunnel.failures[0]?.local.port, tunnel.inbound.address.port);
  });

  const clients: readonly (readonly [string, ConnectionOptions, RegExp])[] = [
    ["no certificate", { cert: "", key: "" }, /showed no certificate/],
    ["TLS 1.2", { minVersion: "TLSv1.2", maxVersion: "TLSv1.2" }, /does not offer TLS 1\.3/],
    ["ChaCha20 alone", { ciphers: "TLS_CHACHA20_POLY1305_SHA256" }, /no shared cipher/],
    ["no ALPN", { ALPNProtocols: [] }, /did not agree to speak HTTP\/2/],
    ["another ALPN", { ALPNProtocols: ["http/1.1"] }, /does not offer HTTP\/2/],
  ];
  for (const [name, options, reason] of clients) {
    it(`refuses a client with ${name}`, async (t) => {
      const tunnel = await startTunnel(t);
      const socket = await rawClient(t, tunnel.inbound.address, options);
      await until(() => socket.destroyed, "the connection is closed");
      await until(() => tunnel.failures.length > 0, "the failure is reported");
      assert.match(tunnel.failures[0]?.reason ?? "", reason);
      assert.equal(tunnel.server.load().inboundSessions, 0);
    });
  }

  for (const [name, bytes, reason] of [
    ["plain HTTP", "GET / HTTP/1.1\r\nHost: x\r\n\r\n", /plain HTTP/],
    ["HTTP/2 without TLS", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", /does not speak TLS/],
    ["garbage", "\u0000\u0001\u0002 SSH-2.0 \r\n\r\n", /does not speak TLS/],
  ] as const) {
    it(`closes ${name} at once, and says what it was`, async (t) => {
      const tunnel = await startTunnel(t);
      const startedAtMs = performance.now();
      const socket = plainClient(t, tunnel.inbound.address);
      await once(socket, "connect");
      const port = socket.localPort;
      socket.end(bytes);
      await until(() => tunnel.failures.length > 0, "the failure is reported");
      assert.match(tunnel.failures[0]?.reason ?? "", reason);
      assert.ok(performance.now() - startedAtMs < 1_000);
      assert.equal(tunnel.failures[0]?.peer.port, port);
    });
  }

  it("reports a peer that hangs up without a word", async (t) => {
    const tunnel = await startTunnel(t);
    const socket = plainClient(t, tunnel.inbound.address);
    await once(socket, "connect");
    socket.end();
    await until(() => tunnel.failures.length > 0, "the failure is reported");
    assert.match(tunnel.failures[0]?.reason ?? "", /hung up/);
  });

  it("does not wait for a silent peer longer than it was told to", async (t) => {
    const tunnel = await startTunnel(t, { settings: { handshakeTimeoutMs: 50 } });
    const socket = plainClient(t, tunnel.inbound.address);
    await until(() => socket.destroyed, "the connection is closed");
    assert.equal(tunnel.failures[0]?.reason, "TLS did not end within 50 ms");
  });

  it("closes a session for which there is no certificate", async (t) => {
    const tunnel = await startTunnel(t, {
      serverMaterial: () => Promise.reject(new Error("pod is unknown")),
    });
    await outcomeOfOne(tunnel);
    await until(() => tunnel.failures.length > 0, "the failure is reported");
    assert.equal(tunnel.failures[0]?.reason, "no certificate to show: pod is unknown");
  });

  it("closes a session whose certificate does not come in time", async (t) => {
    const tunnel = await startTunnel(t, {
      settings: { materialTimeoutMs: 50 },
      serverMaterial: () => new Promise(() => {}),
    });
    await outcomeOfOne(tunnel);
    await until(() => tunnel.failures.length > 0, "the failure is reported");
    assert.equal(tunnel.failures[0]?.reason, "no certificate to show within 50 ms");
  });

  it("closes a session whose certificate cannot be read", async (t) => {
    const { server } = await testMaterials();
    const tunnel = await startTunnel(t, {
      serverMaterial: async () => ({ ...server, certificateChainPem: "nonsense" }),
    });
    await outcomeOfOne(tunnel);
    await until(() => tunnel.failures.length > 0, "the failure is reported");
    assert.match(tunnel.failures[0]?.reason ?? "", /certificate to show cannot be used/);
  });

  it("reports a peer that leaves before its first request", async (t) => {
    const tunnel = await startTunnel(t);
    const socket = await rawClient(t, tunnel.inbound.address, {});
    await once(socket, "secureConnect");
    socket.end();
    await until(() => tunnel.failures.length > 0, "the failure is reported");
    assert.match(tunnel.failures[0]?.reason ?? "", /no request came before its end/);
  });

  it("shows a renewed certificate to new sessions and leaves live ones alone", async (t) => {
    const { authority, server } = await testMaterials();
    let material = server;
    const tunnel = await startTunnel(t, { serverMaterial: async () => material });
    const before = await tunnel.connect();
    before.write("a");
    await once(before.resume(), "data");
    material = await authority.material({ uris: ["spiffe://cluster.local/ns/shop/sa/renewed"] });
    const socket = await rawClient(t, tunnel.inbound.address, {});
    await once(socket, "secureConnect");
    assert.match(socket.getPeerX509Certificate()?.subjectAltName ?? "", /renewed/);
    before.end("b");
    assert.equal(String(await readAll(before)), "b");
  });
});

describe("an outbound session", () => {
  it("fails where the server's certificate has expired", async (t) => {
    const material = await expired();
    const tunnel = await startTunnel(t, { serverMaterial: async () => material });
    const failure = await outcomeOfOne(tunnel);
    assert.ok(typeof failure === "object" && failure.kind === "tls");
    assert.match(failure.reason, /not trusted: .*has expired/);
  });

  it("fails where the server's certificate has a foreign root", async (t) => {
    const material = await foreign();
    const tunnel = await startTunnel(t, { serverMaterial: async () => material });
    const failure = await outcomeOfOne(tunnel);
    assert.ok(typeof failure === "object" && failure.kind === "tls");
    assert.match(failure.reason, /not issued by a root that is trusted here/);
  });

  it("fails where the server is somebody else", async (t) => {
    const expected = parseSpiffeId("spiffe://cluster.local/ns/shop/sa/bank");
    const tunnel = await startTunnel(t, { refuseServer: refusePeerUnlessOneOf([expected]) });
    const failure = await outcomeOfOne(tunnel);
    assert.ok(typeof failure === "object" && failure.kind === "identity");
    assert.match(failure.reason, new RegExp(`"${SERVER_URI}", expected "${expected}"`));
  });

  it("sends no server name, offers h2 alone, and resumes nothing", async (t) => {
    const { server } = await testMaterials();
    const seen: TLSSocket[] = [];
    const tlsServer = createServer(
      {
        cert: server.certificateChainPem,
        key: server.privateKeyPem,
        ca: server.rootsPem,
        requestCert: true,
        ALPNProtocols: ["http/1.1", "h2"],
      },
      (socket) => {
        seen.push(socket);
        socket.on("error", () => {});
        socket.end();
      },
    );
    tlsServer.listen(0, "127.0.0.1");
    await once(tlsServer, "listening");
    t.after(() => tlsServer.close());
    const address = tlsServer.address();
    assert.ok(typeof address === "object" && address !== null);
    const { inbound } = await startTunnel(t);
    const serverAddress = { ip: inbound.address.ip, port: address.port };
    const tunnel = await startTunnel(t, { serverAddress });
    await tunnel.connect();
    await until(() => tunnel.outcomes.length === 1, "the first is decided");
    await tunnel.connect();
    await until(() => tunnel.outcomes.length === 2, "the second is decided");
    for (const socket of seen) {
      assert.equal(socket.servername, false);
      assert.equal(socket.alpnProtocol, "h2");
      assert.equal(socket.isSessionReused(), false);
      assert.equal(socket.authorized, true);
      assert.equal(socket.getProtocol(), "TLSv1.3");
      assert.match(socket.getCipher().name, /^TLS_AES_(256|128)_GCM_/);
    }
    assert.equal(seen.length, 2);
  });

  it("offers AES-GCM alone", async (t) => {
    const { server } = await testMaterials();
    const tlsServer = createServer({
      cert: server.certificateChainPem,
      key: server.privateKeyPem,
      ciphers: "TLS_CHACHA20_POLY1305_SHA256",
    });
    let problem = "";
    tlsServer.on("tlsClientError", (error) => {
      problem = error.message;
    });
    const serverAddress = await listen(t, (socket) => tlsServer.emit("connection", socket));
    const failure = await outcomeOfOne(await startTunnel(t, { serverAddress }));
    assert.ok(typeof failure === "object" && failure.kind === "tls");
    assert.match(problem, /no shared cipher/);
  });

  it("does not wait for a silent server longer than it was told to", async (t) => {
    const serverAddress = await listen(t, () => {});
    const settings = { handshakeTimeoutMs: 50 };
    const failure = await outcomeOfOne(await startTunnel(t, { serverAddress, settings }));
    assert.deepEqual(failure, { kind: "tls", reason: "the handshake did not end within 50 ms" });
  });

  it("fails where the server does not speak TLS", async (t) => {
    const serverAddress = await listen(t, (socket) => socket.end("220 smtp\r\n"));
    const failure = await outcomeOfOne(await startTunnel(t, { serverAddress }));
    assert.ok(typeof failure === "object" && failure.kind === "tls", JSON.stringify(failure));
  });

  it("fails where its own certificate cannot be read", async (t) => {
    const { client } = await testMaterials();
    const clientMaterial = { ...client, privateKeyPem: "nonsense" };
    const failure = await outcomeOfOne(await startTunnel(t, { clientMaterial }));
    assert.ok(typeof failure === "object" && failure.kind === "tls");
    assert.match(failure.reason, /our own certificate cannot be used/);
  });
});

describe("InboundHandshakes", () => {
  it("resets a connection beyond the most handshakes at a time", async (t) => {
    const settings = { ...DEFAULT_HBONE_SETTINGS, materialTimeoutMs: 100 };
    const handshakes = new InboundHandshakes(settings, 2);
    const reasons: string[] = [];
    const address = await listen(t, (socket) => {
      handshakes.begin(socket, () => new Promise(() => {}), {
        onSecure: () => "not expected",
        onFailed: (reason) => reasons.push(reason),
      });
    });
    for (let count = 0; count < 3; count++) plainClient(t, address);
    await until(() => reasons.length > 0, "one is refused");
    assert.deepEqual(reasons, ["2 other handshakes are under way"]);
    await until(() => reasons.length === 3, "the others are over");
    plainClient(t, address);
    await until(() => reasons.length === 4, "there is room again");
    assert.equal(reasons[3], "no certificate to show within 100 ms");
  });

  it("makes room for a peer at the cost of one that has taken it all", async (t) => {
    const handshakes = new InboundHandshakes(DEFAULT_HBONE_SETTINGS, 4);
    const failed: [string | undefined, string][] = [];
    let begun = 0;
    const address = await listen(t, (socket) => {
      const peer = socket.remoteAddress;
      begun++;
      handshakes.begin(socket, () => new Promise(() => {}), {
        onSecure: () => "not expected",
        onFailed: (reason) => failed.push([peer, reason]),
      });
    });
    const from = async (localAddress: string) => {
      const before = begun;
      plainClient(t, address, localAddress);
      await until(() => begun > before, "it has come");
    };
    for (let count = 0; count < 4; count++) await from("127.0.0.2");
    await from("127.0.0.3");
    await from("127.0.0.3");
    const reasons = failed.map(([peer, reason]) => `${peer} ${/oldest of \d/.exec(reason)?.[0]}`);
    assert.deepEqual(reasons, ["127.0.0.2 oldest of 4", "127.0.0.2 oldest of 3"]);
    await from("127.0.0.3");
    assert.deepEqual(failed[2], ["127.0.0.3", "4 other handshakes are under way"]);
  });
});

/** A TLS client that is right in everything but the options. */
async function rawClient(t: TestContext, address: SocketAddress, options: ConnectionOptions) {
  const { client } = await testMaterials();
  const socket = tlsConnect({
    host: address.ip,
    port: address.port,
    cert: client.certificateChainPem,
    key: client.privateKeyPem,
    ca: client.rootsPem,
    ALPNProtocols: ["h2"],
    checkServerIdentity: () => undefined,
    ...options,
  });
  socket.on("error", () => {});
  t.after(() => socket.destroy());
  return socket;
}

function plainClient(t: TestContext, address: SocketAddress, localAddress?: string): Socket {
  const from = localAddress === undefined ? {} : { localAddress };
  const socket = createConnection({ host: address.ip, port: address.port, ...from });
  socket.on("error", () => {});
  socket.resume();
  t.after(() => socket.destroy());
  return socket;
}
