/**
 * Sockets on the tunnel's port whose peer is not known yet: how many, and for how long.
 */
import type { Socket } from "node:net";
import type { Server, TLSSocket } from "node:tls";
import { reasonOf } from "#core/errors.ts";
import { ServerContexts } from "../tls/contexts.ts";
import type { TlsMaterial } from "./engine.ts";
import type { HboneSettings } from "./settings.ts";
import { underlyingSocketOf } from "./socket.ts";

/**
 * Most handshakes under way at a time, of all listeners of an engine. Each costs some 100 KiB, and
 * at a few hundred handshakes per second and core a longer queue would only time out.
 */
export const HANDSHAKES_MAX = 1024;

export interface HandshakeEvents {
  /** @returns why the peer is refused, or undefined where the socket has been taken over */
  readonly onSecure: (socket: TLSSocket) => string | undefined;
  /** The socket is gone. */
  readonly onFailed: (reason: string) => void;
}

export class InboundHandshakes {
  readonly #servers = new ServerContexts((server) => this.#listenTo(server));
  readonly #settings: HboneSettings;
  readonly #max: number;
  readonly #underWay = new Map<Socket, Handshake>();
  /** The same by the peer's address, oldest first. */
  readonly #byPeer = new Map<string, Set<Handshake>>();

  constructor(settings: HboneSettings, max = HANDSHAKES_MAX) {
    this.#settings = settings;
    this.#max = max;
  }

  /** @param socket  paused */
  begin(socket: Socket, material: () => Promise<TlsMaterial>, events: HandshakeEvents): void {
    const peer = socket.remoteAddress ?? "";
    if (this.#underWay.size >= this.#max && !this.#makeRoomFor(peer)) {
      socket.resetAndDestroy();
      events.onFailed(`${this.#max} other handshakes are under way`);
      return;
    }
    const handshake = new Handshake(socket, events, () => this.#forget(socket, peer, handshake));
    this.#underWay.set(socket, handshake);
    this.#byPeer.set(peer, (this.#byPeer.get(peer) ?? new Set()).add(handshake));
    const { materialTimeoutMs, handshakeTimeoutMs } = this.#settings;
    handshake.limit(materialTimeoutMs, `no certificate to show within ${materialTimeoutMs} ms`);
    material().then(
      (ready) => {
        if (handshake.isOver) return;
        handshake.limit(handshakeTimeoutMs, `TLS did not end within ${handshakeTimeoutMs} ms`);
        this.#handOver(socket, ready, handshake);
      },
      (error: unknown) => handshake.fail(`no certificate to show: ${reasonOf(error)}`),
    );
  }

  /**
   * Whoever opens sockets and says nothing on them takes its own place, not that of the others: the
   * oldest handshake of the peer that has most gives way, if the newcomer has fewer even with it.
   */
  #makeRoomFor(peer: string): boolean {
    const own = this.#byPeer.get(peer)?.size ?? 0;
    const sets = [...this.#byPeer.values()];
    const most = sets.reduce((a, b) => (b.size > a.size ? b : a), new Set<Handshake>());
    if (most.size <= own + 1) return false;
    const [oldest] = most;
    oldest?.fail(`it was the oldest of ${most.size} of this peer when there was no more room`);
    return true;
  }

  #forget(socket: Socket, peer: string, handshake: Handshake): void {
    this.#underWay.delete(socket);
    const ofPeer = this.#byPeer.get(peer);
    ofPeer?.delete(handshake);
    if (ofPeer?.size === 0) this.#byPeer.delete(peer);
  }

  #handOver(socket: Socket, material: TlsMaterial, handshake: Handshake): void {
    try {
      this.#servers.of(material).emit("connection", socket);
    } catch (error) {
      handshake.fail(`the certificate to show cannot be used: ${reasonOf(error)}`);
    }
  }

  #listenTo(server: Server): void {
    server.on("secureConnection", (socket) => {
      const handshake = this.#of(socket);
      // Nobody waits for it: it ran out of time in the very same moment.
      if (handshake) handshake.secure(socket);
      else socket.destroy();
    });
    server.on("tlsClientError", (error: NodeJS.ErrnoException, socket) => {
      this.#of(socket)?.fail(tlsReason(error));
    });
  }

  #of(socket: TLSSocket): Handshake | undefined {
    const underlying = underlyingSocketOf(socket);
    return underlying && this.#underWay.get(underlying);
  }
}

class Handshake {
  readonly #socket: Socket;
  readonly #events: HandshakeEvents;
  readonly #forget: () => void;
  #timer: NodeJS.Timeout | undefined;
  isOver = false;

  constructor(socket: Socket, events: HandshakeEvents, forget: () => void) {
    this.#socket = socket;
    this.#events = events;
    this.#forget = forget;
    socket.on("close", this.#onClose);
  }

  readonly #onClose = () => this.fail("the peer hung up during the handshake");

  limit(limitMs: number, reason: string): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.fail(reason), limitMs);
  }

  secure(socket: TLSSocket): void {
    const refusal = this.#events.onSecure(socket);
    if (refusal === undefined) {
      this.#end();
      return;
    }
    socket.on("error", () => {});
    socket.destroy();
    this.fail(refusal);
  }

  fail(reason: string): void {
    if (this.isOver) return;
    this.#end();
    this.#socket.destroy();
    this.#events.onFailed(reason);
  }

  #end(): void {
    this.isOver = true;
    clearTimeout(this.#timer);
    this.#socket.off("close", this.#onClose);
    this.#forget();
  }
}

/** OpenSSL's words for what happens on a port that somebody took for another. */
function tlsReason(error: NodeJS.ErrnoException): string {
  switch (error.code) {
    case "ERR_SSL_HTTP_REQUEST":
      return "it speaks plain HTTP, TLS was expected";
    case "ERR_SSL_WRONG_VERSION_NUMBER":
    case "ERR_SSL_PACKET_LENGTH_TOO_LONG":
    case "ERR_SSL_UNEXPECTED_MESSAGE":
      return `it does not speak TLS (${error.code})`;
    case "ERR_SSL_UNSUPPORTED_PROTOCOL":
      return "it does not offer TLS 1.3";
    case "ERR_SSL_NO_APPLICATION_PROTOCOL":
      return "it does not offer HTTP/2 (ALPN h2)";
    case "ECONNRESET":
      return "the peer hung up during the handshake";
    default:
      return error.message;
  }
}
