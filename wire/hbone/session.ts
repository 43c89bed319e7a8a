/** What both ends of an HTTP/2 session over TLS have in common: settings, life signs, its end. */
import { constants, type Http2Session, type Settings } from "node:http2";
import type { TLSSocket } from "node:tls";
import type { HboneSettings } from "./settings.ts";

/**
 * Limits that node:http2 puts on a peer, either end. A peer has proved who it is, so these are
 * against its mistakes, and against one workload starving the others of its node.
 */
export const SESSION_LIMITS = {
  /**
   * Megabytes that may wait to be sent before new streams are refused. Each relay holds at most
   * 1 MiB of that, so all streams of a session fit; Node's own limit of 10 is met by ten.
   */
  maxSessionMemory: 256,
  /** Headers of one CONNECT: pseudo-headers, baggage, forwarded, traceparent, and some to spare. */
  maxHeaderListPairs: 64,
  /**
   * How many streams a peer may reset at once and per second. One application whose connections
   * all end in a reset must not cost its node the session; a flood of resets must (CVE-2023-44487).
   */
  streamResetBurst: 10_000,
  streamResetRate: 1_000,
} as const;

/** SETTINGS of the end that accepts a session. */
export function inboundSettings(settings: HboneSettings): Settings {
  return {
    initialWindowSize: settings.streamWindowBytes,
    maxFrameSize: settings.frameBytesMax,
    maxHeaderListSize: 64 * 1024,
    maxConcurrentStreams: settings.inboundStreamsPerSessionMax,
  };
}

/** SETTINGS of the end that opens a session. */
export function outboundSettings(settings: HboneSettings): Settings {
  return {
    initialWindowSize: settings.streamWindowBytes,
    maxFrameSize: settings.frameBytesMax,
    maxHeaderListSize: 16 * 1024,
    enablePush: false,
  };
}

/** Watches one session until its end, and ends it where the peer shows no sign of life. */
export class SessionWatch {
  readonly #session: Http2Session;
  readonly #socket: TLSSocket;
  readonly #settings: HboneSettings;
  #brokenReason: string | undefined;
  #timer: NodeJS.Timeout | undefined;

  /** @param onClose  called once, when the session and its socket are gone */
  constructor(
    session: Http2Session,
    socket: TLSSocket,
    settings: HboneSettings,
    onClose: () => void,
  ) {
    this.#session = session;
    this.#socket = socket;
    this.#settings = settings;
    session.setLocalWindowSize(settings.connectionWindowBytes);
    // Before Node's own listeners: those close every stream as if it had been cancelled in peace.
    socket.prependListener("error", (error: NodeJS.ErrnoException) => {
      this.#break(`connection failed: ${error.code ?? error.message}`);
    });
    socket.prependListener("close", () => this.#break("connection closed"));
    session.on("error", (error: Error) => this.#break(error.message));
    session.on("close", () => {
      clearTimeout(this.#timer);
      this.#break("session closed");
      onClose();
    });
    this.#waitToPing();
  }

  /** Why streams of this session are cut off, where they are. */
  readonly brokenReason = (): string | undefined => this.#brokenReason;

  /** Resets every stream, and the connection. */
  abort(reason: string): void {
    this.#break(reason);
    this.#session.destroy(new Error(reason), constants.NGHTTP2_NO_ERROR);
    // The session waits for what it has written to be sent, which a dead peer never takes.
    this.#socket.destroy();
  }

  #break(reason: string): void {
    this.#brokenReason ??= reason;
  }

  #waitToPing(): void {
    this.#timer = setTimeout(() => this.#ping(), this.#settings.pingIntervalMs);
  }

  #ping(): void {
    const { pingTimeoutMs } = this.#settings;
    // A session that says goodbye can no longer send PING; whoever waits for its end has a limit.
    if (this.#session.closed || this.#session.destroyed) return;
    this.#timer = setTimeout(() => {
      this.abort(`no answer to a PING within ${pingTimeoutMs} ms`);
    }, pingTimeoutMs);
    this.#session.ping((error) => {
      if (error) return;
      clearTimeout(this.#timer);
      this.#waitToPing();
    });
  }
}
