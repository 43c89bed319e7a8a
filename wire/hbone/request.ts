/** One CONNECT of an inbound session. */
import { constants, type IncomingHttpHeaders, type ServerHttp2Stream } from "node:http2";
import type { SocketAddress } from "#core/ip.ts";
import { Connecting } from "./downstream.ts";
import { tunnelEnd } from "./end.ts";
import type { ConnectResult, TunnelRequest, Upstream } from "./engine.ts";
import { pseudoHeader, readHeaders, writeHeaders } from "./headers.ts";
import type { EngineParts } from "./parts.ts";

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
    this.#stream.respond({ ":status": status }, { endStream: true });
    // The rest of what the peer may send is of no interest (RFC 9113, 8.1). Within the same turn the
    // reset would take the place of the answer, which nghttp2 has not written yet.
    setImmediate(() => this.#stream.close(constants.NGHTTP2_NO_ERROR));
  }
}

function isOpen(stream: ServerHttp2Stream): boolean {
  return !stream.destroyed && !stream.closed && !stream.headersSent;
}
