/** The client's end of one session: TCP, TLS, a judgement on the server, HTTP/2, CONNECT. */
import { type ClientHttp2Session, type ClientHttp2Stream, connect, constants } from "node:http2";
import type { Socket } from "node:net";
import { type SecureContext, type TLSSocket, connect as tlsConnect } from "node:tls";
import { judgePeer } from "../tls/peer.ts";
import { errorCodeName, tunnelEnd } from "./end.ts";
import type { ConnectRequest, SessionTarget } from "./engine.ts";
import { readHeaders, writeHeaders } from "./headers.ts";
import { type Failed, failed, type Opened } from "./parts.ts";
import { outboundSettings, SESSION_LIMITS, SessionWatch } from "./session.ts";
import type { HboneSettings } from "./settings.ts";

export type SecureResult =
  | { readonly kind: "secure"; readonly socket: TLSSocket; readonly uris: readonly string[] }
  | Failed;

/** Makes a TLS connection out of a TCP connection, which it owns from then on. */
export function secure(
  socket: Socket,
  context: SecureContext,
  refusePeer: SessionTarget["refusePeer"],
  timeoutMs: number,
): Promise<SecureResult> {
  return new Promise((resolve) => {
    // No server name: which certificate is shown follows from the address (no SNI in HBONE).
    const tlsSocket = tlsConnect({
      socket,
      secureContext: context,
      ALPNProtocols: ["h2"],
      // Judged below, where the certificate is still at hand to say why.
      rejectUnauthorized: false,
      // Names of hosts mean nothing here; who it is stands in a URI.
      checkServerIdentity: () => undefined,
    });
    const timer = setTimeout(() => {
      settle(failed("tls", `the handshake did not end within ${timeoutMs} ms`));
    }, timeoutMs);
    const onSecure = () => {
      const verdict = judgePeer(tlsSocket, refusePeer);
      switch (verdict.kind) {
        case "untrusted":
          return settle(failed("tls", `the other end is not trusted: ${verdict.reason}`));
        case "unwanted":
          return settle(failed("identity", `the other end is refused: ${verdict.reason}`));
        case "accepted":
          return settle({ kind: "secure", socket: tlsSocket, uris: verdict.uris });
      }
    };
    const onError = (error: Error) => settle(failed("tls", error.message));
    const onClose = () => settle(failed("tls", "the other end hung up during the handshake"));
    tlsSocket.once("secureConnect", onSecure);
    tlsSocket.once("error", onError);
    tlsSocket.once("close", onClose);
    // It may fail again while it is closed, or in the turn in which its handshake ends.
    tlsSocket.on("error", () => {});

    function settle(result: SecureResult): void {
      clearTimeout(timer);
      tlsSocket.off("secureConnect", onSecure);
      tlsSocket.off("error", onError);
      tlsSocket.off("close", onClose);
      if (result.kind === "failed") tlsSocket.destroy();
      resolve(result);
    }
  });
}

/** One session that carries many streams. */
export class OutboundSession {
  readonly #session: ClientHttp2Session;
  readonly #watch: SessionWatch;
  readonly #settings: HboneSettings;
  readonly #uris: readonly string[];
  /** Kept once the peer's SETTINGS are here: why they never came, or undefined. */
  readonly ready: Promise<string | undefined>;
  readonly #onUnusable: (session: OutboundSession) => void;
  #streams = 0;
  #isUsable = true;
  #idleTimer: NodeJS.Timeout | undefined;

  /**
   * @param onUnusable  it opens no more streams; what is open goes on
   * @param onClose  it is gone
   */
  constructor(
    socket: TLSSocket,
    uris: readonly string[],
    settings: HboneSettings,
    events: {
      readonly onUnusable: (session: OutboundSession) => void;
      readonly onClose: (session: OutboundSession) => void;
    },
  ) {
    this.#settings = settings;
    this.#uris = uris;
    this.#onUnusable = events.onUnusable;
    // The authority given here is never sent: each CONNECT has its own.
    this.#session = connect("https://hbone.invalid", {
      ...SESSION_LIMITS,
      settings: outboundSettings(settings),
      createConnection: () => socket,
    });
    this.#watch = new SessionWatch(this.#session, socket, settings, () => {
      clearTimeout(this.#idleTimer);
      this.retire();
      events.onClose(this);
    });
    this.ready = this.#waitForSettings();
    this.#session.on("goaway", () => this.retire());
    this.#waitIdle();
  }

  get hasPlace(): boolean {
    if (!this.#isUsable || this.#session.closed || this.#session.destroyed) return false;
    return this.#streams < this.#streamsMax();
  }

  /**
   * Takes a place for a stream, which `open()` uses up. The last place retires the session, so that
   * sessions whose streams live long are not kept in use for ever.
   *
   * @returns whether there was one
   */
  reserve(): boolean {
    if (!this.hasPlace) return false;
    clearTimeout(this.#idleTimer);
    this.#streams++;
    if (this.#streams >= this.#streamsMax()) this.retire();
    return true;
  }

  /**
   * Sends a CONNECT in the place that was reserved, and waits for its answer.
   *
   * @throws TypeError of node:http2 where a header cannot be sent
   */
  async open(request: ConnectRequest, signal: AbortSignal): Promise<Opened> {
    const stream = this.#send(request);
    stream.once("close", () => this.#release());
    return this.#answerOf(stream, signal);
  }

  /** Opens no more streams, and ends with the last one. */
  retire(): void {
    if (!this.#isUsable) return;
    this.#isUsable = false;
    this.#onUnusable(this);
    if (this.#streams === 0) this.#session.close();
  }

  /** Retires, and tells the other end. */
  leave(): void {
    this.retire();
    this.#session.close();
  }

  abort(reason: string): void {
    this.#watch.abort(reason);
  }

  #send({ authority, headers }: ConnectRequest): ClientHttp2Stream {
    try {
      const pseudoHeaders = { ":method": "CONNECT", ":authority": authority };
      return this.#session.request(writeHeaders(pseudoHeaders, headers), { endStream: false });
    } catch (error) {
      this.#release();
      throw error;
    }
  }

  #answerOf(stream: ClientHttp2Stream, signal: AbortSignal): Promise<Opened> {
    const { answerTimeoutMs } = this.#settings;
    return new Promise((resolve) => {
      const timer = setTimeout(() => {
        settle(failed("timedOut", `no answer to CONNECT within ${answerTimeoutMs} ms`));
      }, answerTimeoutMs);
      const onAbort = () => settle(failed("downstreamClosed", "the other side went away"));
      const onError = () => {};
      const onClose = () => {
        const reason =
          this.#watch.brokenReason() ?? `stream refused: ${errorCodeName(stream.rstCode ?? 0)}`;
        settle(failed("http2", reason));
      };
      stream.once("response", (answer) => {
        const status = Number(answer[":status"]);
        if (status !== 200) {
          const reason = `the other end answered ${status}`;
          settle({ kind: "failed", failure: { kind: "status", reason, status } });
          return;
        }
        const end = tunnelEnd(stream, this.#watch.brokenReason);
        const responseHeaders = readHeaders(answer);
        settle({ kind: "opened", end, responseHeaders, peerUris: this.#uris });
      });
      stream.on("error", onError);
      stream.once("close", onClose);
      if (signal.aborted) onAbort();
      else signal.addEventListener("abort", onAbort);

      function settle(result: Opened): void {
        clearTimeout(timer);
        signal.removeEventListener("abort", onAbort);
        stream.off("close", onClose);
        if (result.kind === "failed") stream.close(constants.NGHTTP2_CANCEL);
        resolve(result);
      }
    });
  }

  /**
   * The cap on streams is among them. And a server that refuses our certificate says so only here:
   * in TLS 1.3 the client has finished its handshake before the server has seen the certificate.
   */
  #waitForSettings(): Promise<string | undefined> {
    const { handshakeTimeoutMs } = this.#settings;
    return new Promise((resolve) => {
      const timer = setTimeout(() => {
        const reason = `no HTTP/2 settings came within ${handshakeTimeoutMs} ms`;
        this.abort(reason);
        resolve(reason);
      }, handshakeTimeoutMs);
      this.#session.once("remoteSettings", () => {
        clearTimeout(timer);
        resolve(undefined);
      });
      this.#session.once("close", () => {
        clearTimeout(timer);
        resolve(`it hung up after the handshake (${this.#watch.brokenReason()})`);
      });
    });
  }

  #streamsMax(): number {
    const ofPeer = this.#session.remoteSettings.maxConcurrentStreams ?? Number.POSITIVE_INFINITY;
    return Math.min(this.#settings.streamsPerSessionMax, ofPeer);
  }

  #release(): void {
    this.#streams--;
    if (this.#streams > 0) return;
    if (this.#isUsable) this.#waitIdle();
    else this.#session.close();
  }

  #waitIdle(): void {
    clearTimeout(this.#idleTimer);
    this.#idleTimer = setTimeout(() => this.retire(), this.#settings.idleReleaseMs);
  }
}
