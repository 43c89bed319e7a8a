/** The server's end: TCP, then TLS, then a judgement on the peer, and only then HTTP/2. */
import { performServerHandshake, type ServerHttp2Session } from "node:http2";
import { createServer, type Server, type Socket } from "node:net";
import type { TLSSocket } from "node:tls";
import type { SocketAddress } from "#core/ip.ts";
import { judgePeer } from "../tls/peer.ts";
import type { Listener, TunnelListenerOptions } from "./engine.ts";
import type { InboundHandshakes } from "./handshake.ts";
import type { EngineParts } from "./parts.ts";
import { listen } from "./plain.ts";
import { InboundRequest } from "./request.ts";
import { inboundSettings, SESSION_LIMITS, SessionWatch } from "./session.ts";
import { endsOf, KEEPALIVE_DELAY_MS } from "./socket.ts";

/** A grace for requests that were under way when the first GOAWAY went out (RFC 9113, 6.8). */
const GOAWAY_GRACE_MS = 1_000;

/** The highest stream id: "I am leaving, but have not decided yet what I still answer". */
const LAST_STREAM_ID_MAX = 2 ** 31 - 1;

interface Ends {
  readonly peer: SocketAddress;
  readonly local: SocketAddress;
}

export class TunnelListener implements Listener {
  readonly address: SocketAddress;
  acceptedCount = 0;
  readonly #server: Server;
  readonly #sessions = new Set<InboundSession>();
  /** Every accepted socket, whatever has become of it. */
  readonly #sockets = new Set<Socket>();
  readonly #options: TunnelListenerOptions;
  readonly #parts: EngineParts;
  readonly #handshakes: InboundHandshakes;
  readonly #onChange: (listener: TunnelListener) => void;
  #isAborted = false;

  /** @param onChange  a socket is gone, or the listener is closed */
  constructor(
    fd: number,
    options: TunnelListenerOptions,
    parts: EngineParts,
    handshakes: InboundHandshakes,
    onChange: (listener: TunnelListener) => void,
  ) {
    this.#onChange = onChange;
    this.#options = options;
    this.#parts = parts;
    this.#handshakes = handshakes;
    this.#server = createServer(
      {
        pauseOnConnect: true,
        noDelay: true,
        keepAlive: true,
        keepAliveInitialDelay: KEEPALIVE_DELAY_MS,
      },
      (socket) => this.#accept(socket),
    );
    this.address = listen(this.#server, fd);
  }

  get isAccepting(): boolean {
    return this.#server.listening;
  }

  get isGone(): boolean {
    return !this.isAccepting && this.#sockets.size === 0;
  }

  get sessionCount(): number {
    return this.#sessions.size;
  }

  /** Connections whose handshake has not ended go on to it, and then hear GOAWAY. */
  close(): void {
    this.#server.close();
    for (const session of this.#sessions) session.leave();
    this.#onChange(this);
  }

  abort(): void {
    this.#isAborted = true;
    this.#server.close();
    for (const session of this.#sessions) session.abort("listener was closed");
    for (const socket of this.#sockets) socket.destroy();
    this.#onChange(this);
  }

  #accept(socket: Socket): void {
    this.acceptedCount++;
    this.#sockets.add(socket);
    socket.on("close", () => {
      this.#sockets.delete(socket);
      this.#onChange(this);
    });
    socket.on("error", () => {});
    const ends = endsOf(socket);
    if (!ends) {
      socket.destroy();
      return;
    }
    this.#handshakes.begin(socket, this.#options.material, {
      onSecure: (tlsSocket) => this.#secured(tlsSocket, ends),
      onFailed: (reason) => {
        if (!this.#isAborted) this.#options.onHandshakeFailed({ ...ends, reason });
      },
    });
  }

  /** @returns why the peer is refused, where it is */
  #secured(socket: TLSSocket, ends: Ends): string | undefined {
    const verdict = judgePeer(socket, this.#options.refusePeer);
    switch (verdict.kind) {
      case "untrusted":
      case "unwanted":
        return verdict.reason;
      case "accepted": {
        const session = new InboundSession(socket, verdict.uris, ends, this.#options, this.#parts);
        this.#sessions.add(session);
        session.onClose = () => this.#sessions.delete(session);
        if (!this.#server.listening) session.leave();
        return undefined;
      }
    }
  }
}

/** One session that a peer has opened; its requests go to the listener's user. */
export class InboundSession {
  onClose: () => void = () => {};
  readonly #session: ServerHttp2Session;
  readonly #watch: SessionWatch;
  #hasRequest = false;
  #isLeaving = false;

  constructor(
    socket: TLSSocket,
    peerUris: readonly string[],
    ends: Ends,
    options: TunnelListenerOptions,
    parts: EngineParts,
  ) {
    this.#session = performServerHandshake(socket, {
      ...SESSION_LIMITS,
      settings: inboundSettings(parts.settings),
    });
    this.#watch = new SessionWatch(this.#session, socket, parts.settings, () => {
      if (!this.#hasRequest && !this.#isLeaving) {
        const reason = `no request came before its end: ${this.#watch.brokenReason()}`;
        options.onHandshakeFailed({ ...ends, reason });
      }
      this.onClose();
    });
    const origin = { ...ends, peerUris, sessionBroken: this.#watch.brokenReason };
    this.#session.on("stream", (stream, headers) => {
      this.#hasRequest = true;
      options.onRequest(new InboundRequest(stream, headers, origin, parts));
    });
  }

  /** Says goodbye: what is open goes on, and the session ends with the last of it. */
  leave(): void {
    if (this.#isLeaving || this.#session.closed || this.#session.destroyed) return;
    this.#isLeaving = true;
    this.#session.goaway(0, LAST_STREAM_ID_MAX);
    const timer = setTimeout(() => this.#session.close(), GOAWAY_GRACE_MS);
    // Once the peer has answered, it has also heard the GOAWAY, and opens nothing any more.
    this.#session.ping(() => {
      clearTimeout(timer);
      this.#session.close();
    });
  }

  abort(reason: string): void {
    this.#isLeaving = true;
    this.#watch.abort(reason);
  }
}
