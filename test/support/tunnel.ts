/**
 * Two engines and an application on loopback, joined as two nodes of a mesh are:
 *
 *   connect() -- plain --> client engine == HBONE ==> server engine -- plain --> application
 */
import assert from "node:assert/strict";
import { once } from "node:events";
import { type AddressInfo, connect, createServer, type Socket } from "node:net";
import type { Duplex } from "node:stream";
import type { TestContext } from "node:test";
import { parseIp, type SocketAddress } from "#core/ip.ts";
import type {
  ConnectResult,
  Dial,
  HandshakeFailure,
  Listener,
  PlainConnection,
  Relay,
  SessionTarget,
  TlsMaterial,
  TunnelEngine,
  TunnelListenerOptions,
  TunnelRequest,
  Upstream,
} from "#wire/hbone/engine.ts";
import { createHboneEngine } from "#wire/hbone/node-engine.ts";
import type { HboneSettings } from "#wire/hbone/settings.ts";
import { TestAuthority } from "./certificates.ts";
import { boundSocket } from "./sockets.ts";

const LOOPBACK = parseIp("127.0.0.1");
export const CLIENT_URI = "spiffe://cluster.local/ns/shop/sa/cart";
export const SERVER_URI = "spiffe://cluster.local/ns/shop/sa/stock";

export interface TunnelOptions {
  /** What the application does with a connection. Echoes, where it is left out. */
  readonly app?: (socket: Socket) => void;
  readonly settings?: Partial<HboneSettings>;
  /** Of both ends, where the next is left out. */
  readonly serverSettings?: Partial<HboneSettings>;
  readonly clientMaterial?: TlsMaterial;
  readonly serverMaterial?: TunnelListenerOptions["material"];
  readonly refuseClient?: TunnelListenerOptions["refusePeer"];
  readonly refuseServer?: SessionTarget["refusePeer"];
  /** Connects to the application, where it is left out. */
  readonly onRequest?: (request: TunnelRequest) => void;
  /** Stands in the place of the server engine. */
  readonly serverAddress?: SocketAddress;
}

export class Tunnel {
  readonly client: TunnelEngine;
  readonly server: TunnelEngine;
  readonly inbound: Listener;
  readonly outbound: Listener;
  readonly appAddress: SocketAddress;
  readonly failures: HandshakeFailure[] = [];
  /** What became of each connection at the client engine, in the order in which it was known. */
  readonly outcomes: ConnectResult[] = [];
  readonly clientRelays: Relay[] = [];
  readonly serverRelays: Relay[] = [];
  readonly requests: TunnelRequest[] = [];
  /** How many connections have come to the client engine. */
  captured = 0;
  clientMaterial: TlsMaterial;
  readonly #options: TunnelOptions;
  readonly #serverAddress: SocketAddress;

  constructor(options: TunnelOptions, materials: Materials, appAddress: SocketAddress) {
    this.#options = options;
    this.appAddress = appAddress;
    this.clientMaterial = options.clientMaterial ?? materials.client;
    this.client = createHboneEngine(options.settings);
    this.server = createHboneEngine(options.serverSettings ?? options.settings);
    this.inbound = this.server.listenTunnel(boundSocket(), {
      material: options.serverMaterial ?? (async () => materials.server),
      refusePeer: options.refuseClient ?? (() => undefined),
      onHandshakeFailed: (failure) => this.failures.push(failure),
      onRequest: (request) => {
        this.requests.push(request);
        if (options.onRequest) options.onRequest(request);
        else void this.serve(request);
      },
    });
    this.#serverAddress = options.serverAddress ?? this.inbound.address;
    this.outbound = this.client.listenPlain(boundSocket(), (connection) => {
      void this.#carry(connection);
    });
  }

  /** An application's connection, captured by the client engine. Half-open, and paused. */
  async connect(): Promise<Socket> {
    const socket = connect({
      host: LOOPBACK,
      port: this.outbound.address.port,
      allowHalfOpen: true,
    });
    socket.pause();
    // A reset that no test asks about is no failure.
    socket.on("error", () => {});
    await new Promise((resolve) => socket.once("connect", resolve).once("error", resolve));
    return socket;
  }

  /** Joins a request with the application. */
  async serve(request: TunnelRequest): Promise<ConnectResult> {
    const result = await request.connect({ kind: "tcp", dial: dialTo(this.appAddress) });
    if (result.kind === "connected") this.serverRelays.push(result.relay);
    else request.refuse(503);
    return result;
  }

  tunnelUpstream(): Upstream {
    return {
      kind: "tunnel",
      session: {
        key: "to the server",
        dial: dialTo(this.#serverAddress),
        material: this.clientMaterial,
        refusePeer: this.#options.refuseServer ?? (() => undefined),
      },
      request: { authority: "10.1.2.3:80", headers: new Map([["baggage", "k8s.pod.name=cart"]]) },
    };
  }

  close(): void {
    this.client.close();
    this.server.close();
  }

  async #carry(connection: PlainConnection): Promise<void> {
    this.captured++;
    const result = await connection.connect(this.tunnelUpstream());
    this.outcomes.push(result);
    if (result.kind === "connected") this.clientRelays.push(result.relay);
    else connection.refuse();
  }
}

/** Everything of it is closed when the test ends. */
export async function startTunnel(t: TestContext, options: TunnelOptions = {}): Promise<Tunnel> {
  const materials = await testMaterials();
  const app = await listen(t, options.app ?? ((socket) => socket.pipe(socket)));
  const tunnel = new Tunnel(options, materials, app);
  t.after(() => tunnel.close());
  return tunnel;
}

/** A TCP server, half-open, on a free port of loopback. */
export async function listen(
  t: TestContext,
  onConnection: (socket: Socket) => void,
): Promise<SocketAddress> {
  const sockets = new Set<Socket>();
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    sockets.add(socket);
    socket.on("close", () => sockets.delete(socket));
    socket.on("error", () => {});
    onConnection(socket);
  });
  server.listen(0, LOOPBACK);
  await once(server, "listening");
  t.after(() => {
    server.close();
    for (const socket of sockets) socket.destroy();
  });
  // A TCP server has a port.
  return { ip: LOOPBACK, port: (server.address() as AddressInfo).port };
}

export function dialTo(address: SocketAddress, timeoutMs = 2_000): Dial {
  return { openSocket: () => boundSocket(), address, timeoutMs };
}

interface Materials {
  readonly authority: TestAuthority;
  readonly client: TlsMaterial;
  readonly server: TlsMaterial;
}

let materials: Promise<Materials> | undefined;

/** One authority and one certificate for either end, made once per process. */
export function testMaterials(): Promise<Materials> {
  materials ??= makeMaterials();
  return materials;
}

async function makeMaterials(): Promise<Materials> {
  const authority = await TestAuthority.create();
  const [client, server] = await Promise.all([
    authority.material({ uris: [CLIENT_URI] }),
    authority.material({ uris: [SERVER_URI] }),
  ]);
  return { authority, client, server };
}

/** Waits for a condition, and fails when it does not come true in time. */
export async function until(
  condition: () => boolean,
  what: string,
  limitMs = 5_000,
): Promise<void> {
  const deadlineMs = performance.now() + limitMs;
  while (!condition()) {
    assert.ok(performance.now() < deadlineMs, `within ${limitMs} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

/** Everything that a socket has to say, up to its end. @throws the error that it broke with */
export function readAll(socket: Duplex): Promise<Buffer> {
  const chunks: Buffer[] = [];
  socket.on("data", (chunk: Buffer) => chunks.push(chunk));
  socket.resume();
  return new Promise((resolve, reject) => {
    socket.once("end", () => resolve(Buffer.concat(chunks)));
    socket.once("error", reject);
  });
}

/** How a socket ends. It is read, and what comes is thrown away. */
export async function outcomeOf(socket: Duplex): Promise<"reset" | "ended"> {
  socket.resume();
  return new Promise((resolve) => {
    // It may have broken already, before anybody asked.
    if (socket.errored) resolve("reset");
    socket.once("end", () => resolve("ended"));
    socket.once("error", () => resolve("reset"));
  });
}
