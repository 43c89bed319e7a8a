import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import http2 from "node:http2";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, afterEach, before, describe, it } from "node:test";
import { connect, type TLSSocket } from "node:tls";
import { promisify } from "node:util";
import { Server } from "@grpc/grpc-js";
import { waitFor } from "../../test/support/wait.ts";
import { type Authority, openAuthority } from "./root.ts";
import { ServerCertificate, type ServerCertificateEvent } from "./server-certificate.ts";

const clock = { nowMs: () => Date.now() };

describe("ServerCertificate", () => {
  let directory: string;
  let authority: Authority;
  let certificate: ServerCertificate;
  let server: Server;
  let port: number;
  let events: ServerCertificateEvent[];

  before(async () => {
    directory = await mkdtemp(join(tmpdir(), `aquifer-server-${process.pid}-`));
    authority = await openAuthority({ directory, trustDomain: "cluster.local", clock });
  });
  after(async () => await rm(directory, { recursive: true }));
  afterEach(() => {
    certificate.close();
    server.forceShutdown();
  });

  const start = async (ttlMs?: number, names: readonly string[] = []) => {
    events = [];
    certificate = await ServerCertificate.issue({
      authority,
      names,
      clock,
      random: () => 0,
      onEvent: (event) => events.push(event),
      ...(ttlMs !== undefined && { ttlMs }),
    });
    server = new Server();
    port = await promisify(server.bindAsync.bind(server))("127.0.0.1:0", certificate.credentials);
  };
  /** The certificate that a new connection is shown. */
  const shown = async (servername = "localhost") => {
    const ca = authority.rootsPem.join("");
    const socket = connect({ host: "127.0.0.1", port, ca, servername, ALPNProtocols: ["h2"] });
    try {
      await new Promise((resolve, reject) =>
        socket.on("secureConnect", resolve).on("error", reject),
      );
      return socket.getPeerCertificate();
    } finally {
      socket.destroy();
    }
  };

  it("has the names that nodes call control by, and those it is given", async () => {
    await start(undefined, ["control.example.org", "192.0.2.7", "localhost"]);
    assert.equal(
      (await shown("control.example.org")).subjectaltname,
      "DNS:istiod.istio-system.svc, DNS:localhost, IP Address:127.0.0.1, " +
        "IP Address:0:0:0:0:0:0:0:1, DNS:control.example.org, IP Address:192.0.2.7",
    );
    await assert.rejects(shown("elsewhere.example.org"), { code: "ERR_TLS_CERT_ALTNAME_INVALID" });
  });

  it("is renewed at half of its life, under connections that go on", async () => {
    // It starts two minutes back, so that half of its life is 1.5 s from now.
    await start(123_000);
    const first = await shown();
    const session = http2.connect(`https://localhost:${port}`, { ca: authority.rootsPem.join("") });
    const alive = async () => {
      await new Promise<void>((resolve, reject) => {
        session.ping((error) => (error ? reject(error) : resolve()));
      });
    };
    await new Promise((resolve) => session.once("connect", resolve));
    await waitFor("renewal", () => events.length >= 2);
    assert.notEqual((await shown()).serialNumber, first.serialNumber);
    assert.ok(events.every(({ kind }) => kind === "serverCertificateRenewed"));
    await alive();
    const socket = session.socket as TLSSocket;
    assert.equal(socket.getPeerCertificate().serialNumber, first.serialNumber);
    session.close();
  });

  it("is not renewed any more once it is closed", async (t) => {
    t.mock.timers.enable({ apis: ["setTimeout"] });
    await start();
    certificate.close();
    t.mock.timers.tick(86_400_000);
    assert.equal(events.length, 1);
  });
});
