/** One CONNECT of an inbound session. */
import { constants, type IncomingHttpHeaders, type ServerHttp2Stream } from "node:http2";
import type { SocketAddress } from "#core/ip.ts";
import { Connecting } from "./downstream.ts";
import { tunnelEnd } from "./end.ts";
import type { ConnectResult, TunnelRequest, Upstream } from "./engine.ts";
import { pseudoHeader, readHeaders, writeHeaders } from "./headers.ts";
import type { EngineParts } from "./parts.ts";

/** How long a stream that was refused may stay open. */
const REFUSED_LINGER_MS = 1_000;

/** What a request knows from the session it came in. */
export interface RequestOrigin {
  readonly peer: SocketAddress;
  readonly local: SocketAddress;
  readonly peerUris: readonly string[];
  readonly sessionBroken: () => string | undefined;
}

export class InboundRequest implements TunnelRequest {
  readonly peer: SocketAddress;
  readonly local: SocketAddress;
  readonly peerUris: readonly string[];
  readonly authority: string;
  readonly method: string;
  readonly headers: ReadonlyMap<string, string>;
  responseHeaders: ReadonlyMap<string, string> = new Map();
  readonly #stream: ServerHttp2Stream;
  readonly #sessionBroken: () => string | undefined;
  readonly #connecting: Connecting;

  constructor(
    stream: ServerHttp2Stream,
    headers: IncomingHttpHeaders,
    origin: RequestOrigin,
    parts: EngineParts,
  ) {
    this.peer = origin.peer;
    this.local = origin.local;
    this.peerUris = origin.peerUris;
    this.authority = pseudoHeader(headers, ":authority");
    this.method = pseudoHeader(headers, ":method");
    this.headers = readHeaders(headers);
    this.#stream = stream;
    this.#sessionBroken = origin.sessionBroken;
    this.#connecting = new Connecting(parts);
    stream.on("error", () => {});
    stream.on("close", () => this.#connecting.goneAway());
  }

  connect(upstream: Upstream): Promise<ConnectResult> {
    return this.#connecting.connect(upstream, () => {
      if (isOpen(this.#stream)) {
        this.#stream.respond(writeHeaders({ ":status": 200 }, this.responseHeaders));
      }
      return tunnelEnd(this.#stream, this.#sessionBroken);
    });
  }

  refuse(status: number): void {
    if (!isOpen(this.#stream)) return;
    const stream = this.#stream;
    stream.respond({ ":status": status }, { endStream: true });
    // The peer ends its half, or resets the stream. One that does neither is reset (RFC 9113, 8.1),
    // but not soon: a reset takes the place of an answer that nghttp2 has not written yet.
    stream.resume();
    const timer = setTimeout(() => stream.close(constants.NGHTTP2_NO_ERROR), REFUSED_LINGER_MS);
    stream.once("close", () => clearTimeout(timer));
  }
}

function isOpen(stream: ServerHttp2Stream): boolean {
  return !stream.destroyed && !stream.closed && !stream.headersSent;
}
