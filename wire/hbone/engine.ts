/**
 * What carries the bytes of tunnels, and nothing else.
 *
 * An engine owns plain sockets, TLS and HTTP/2. It knows no service, no policy, and no identity
 * beyond "these are the URIs in the verified certificate of the peer". Whatever needs a decision
 * comes to its user as an event, with an object on which the answer is given: whom to connect to
 * (`connect`), or that nobody is (`refuse`). Nothing per chunk and nothing per byte leaves it.
 *
 * `createHboneEngine()` in node-engine.ts implements it over node:tls and node:http2.
 */
import type { SocketAddress } from "#core/ip.ts";

export interface TunnelEngine {
  /**
   * Accepts plain TCP connections on a listening socket, which the engine owns from then on.
   *
   * Nothing is read from a connection before it is connected to something.
   */
  listenPlain(listenerFd: number, onConnection: (connection: PlainConnection) => void): Listener;

  /** Accepts HBONE on a listening socket, which the engine owns from then on. */
  listenTunnel(listenerFd: number, options: TunnelListenerOptions): Listener;

  /** How much the engine holds right now. */
  load(): EngineLoad;

  /**
   * Sends GOAWAY on every session and opens no new one; streams that are open go on.
   *
   * @param limitMs  may be infinite
   * @returns a promise that is kept when the last relay has ended, or at the limit, when those
   *   that are left have been reset
   */
  drain(limitMs: number): Promise<void>;

  /** Resets whatever is left. */
  close(): void;
}

export interface EngineLoad {
  readonly listeners: number;
  readonly inboundSessions: number;
  readonly outboundSessions: number;
  readonly relays: number;
}

export interface Listener {
  /** Where it listens: a port that the kernel chose is known only here. */
  readonly address: SocketAddress;
  /** Connections so far, whatever has become of them. */
  readonly acceptedCount: number;
  /** Stops accepting. Connections and sessions that it accepted go on, after a GOAWAY. */
  close(): void;
  /** Stops accepting and resets everything that it accepted. */
  abort(): void;
}

/**
 * What a TLS end shows and believes. A renewal is a new object; live sessions keep theirs.
 */
export interface TlsMaterial {
  /** Leaf first, then intermediates; the root is not sent. */
  readonly certificateChainPem: string;
  readonly privateKeyPem: string;
  /** One root or more, concatenated. */
  readonly rootsPem: string;
}

export interface TunnelListenerOptions {
  /** Called for each new session; a rejected promise or a wait of over 5 s closes it. */
  readonly material: () => Promise<TlsMaterial>;
  /**
   * Judges a peer whose certificate chain holds.
   *
   * @param uris  every URI among its subject alternative names
   * @returns why the session is refused, or undefined to accept it
   */
  readonly refusePeer: (uris: readonly string[]) => string | undefined;
  readonly onRequest: (request: TunnelRequest) => void;
  /**
   * A session that ended before its first request, and why: a scan, a foreign certificate.
   */
  readonly onHandshakeFailed: (failure: HandshakeFailure) => void;
}

export interface HandshakeFailure {
  readonly peer: SocketAddress;
  readonly local: SocketAddress;
  readonly reason: string;
}

/** Something that wants to be connected. Every one of them is answered: `connect` or `refuse`. */
interface Downstream {
  readonly peer: SocketAddress;
  /** Of an outbound connection: the listener. Of an inbound one: what the peer dialled. */
  readonly local: SocketAddress;

  /**
   * Connects it to `upstream` and relays until both directions have ended.
   *
   * After a failure nothing has been read from or said to the downstream, so that another upstream
   * can be tried, one at a time. The downstream's own early end makes it fail with
   * `downstreamClosed`; of a plain connection it shows only once something has been connected to.
   */
  connect(upstream: Upstream): Promise<ConnectResult>;
}

export interface PlainConnection extends Downstream {
  /** Of the accepted socket, for socket options and for what the kernel keeps with it. */
  readonly fd: number;
  /** Resets it, so that no bind is held (SO_LINGER 0). */
  refuse(): void;
}

/** One CONNECT of an inbound session. */
export interface TunnelRequest extends Downstream {
  /** As it was sent: `:authority`, not yet parsed. Empty where there was none. */
  readonly authority: string;
  /** As it was sent. Whatever is not `CONNECT` is answered with 400. */
  readonly method: string;
  /** In lower case; several lines of one header are joined with `, `. */
  readonly headers: ReadonlyMap<string, string>;
  /** URIs in the peer's verified certificate. */
  readonly peerUris: readonly string[];
  /** Sent with the 200, which goes out once the upstream has accepted. Set before `connect`. */
  responseHeaders: ReadonlyMap<string, string>;
  /** HEADERS with END_STREAM and this status: 400, 401 or 503. */
  refuse(status: number): void;
}

/** A socket to be connected. */
export interface Dial {
  /**
   * Makes a TCP socket of the address's family, not connected. The engine owns it.
   */
  readonly openSocket: () => number;
  readonly address: SocketAddress;
  readonly timeoutMs: number;
}

export type Upstream =
  | { readonly kind: "tcp"; readonly dial: Dial }
  | { readonly kind: "tunnel"; readonly session: SessionTarget; readonly request: ConnectRequest };

/** A session to share or to open. */
export interface SessionTarget {
  /** Connections with equal keys may share a session: it names all that the session depends on. */
  readonly key: string;
  readonly dial: Dial;
  readonly material: TlsMaterial;
  /** As in `TunnelListenerOptions`, of the server's certificate. */
  readonly refusePeer: (uris: readonly string[]) => string | undefined;
}

export interface ConnectRequest {
  readonly authority: string;
  /** In lower case: `baggage`, `forwarded`, `traceparent`. */
  readonly headers: ReadonlyMap<string, string>;
}

export type ConnectResult =
  | {
      readonly kind: "connected";
      readonly relay: Relay;
      /** Of a tunnel's 200, in lower case; empty for TCP. */
      readonly responseHeaders: ReadonlyMap<string, string>;
      /** URIs in the certificate of the tunnel's other end; empty for TCP. */
      readonly peerUris: readonly string[];
    }
  | { readonly kind: "failed"; readonly failure: ConnectFailure };

/** Why there is no connection, and `reason` for people. */
export interface ConnectFailure {
  readonly kind:
    | "refused" /* nobody listens, or a firewall says no */
    | "unreachable"
    | "timedOut"
    | "tls" /* handshake or chain */
    | "identity" /* the chain holds, the name is not the one expected */
    | "http2" /* the session broke before an answer */
    | "status" /* the other end answered something other than 200 */
    | "downstreamClosed"
    | "draining";
  readonly reason: string;
  /** With `status` only. */
  readonly status?: number;
}

/** Two directions of bytes. */
export interface Relay {
  /** Kept when both directions have ended; never broken. */
  readonly ended: Promise<RelayReport>;
  /** So far. */
  bytes(): RelayBytes;
  /** Resets both sides, giving `reason` in the report. Nothing happens after the end. */
  abort(reason: string): void;
}

export interface RelayBytes {
  readonly fromDownstream: number;
  readonly toDownstream: number;
}

export interface RelayReport extends RelayBytes {
  readonly durationMs: number;
  /** Undefined for an orderly end; a reset that a side may rightly do is orderly (protocol 1.8). */
  readonly error: string | undefined;
}
