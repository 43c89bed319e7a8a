/**
 * The two kinds of thing that a relay joins: a TCP connection, and a stream of a session.
 *
 * Both are Duplex streams of Node. They differ in what their end means and in how they are reset,
 * which is what is told apart here.
 */
import { constants, type Http2Stream } from "node:http2";
import type { Socket } from "node:net";
import type { Duplex } from "node:stream";
import type { OnChunk, SocketReader } from "./reading.ts";

export interface End {
  readonly stream: Duplex;
  /**
   * Whether to hand it what one turn of the loop has brought in one piece. A session does that by
   * itself; to a socket each chunk would be a system call, and those of a tunnel are of 16 KiB.
   */
  readonly collects: boolean;
  /** Starts to read. Until now it was paused: there was nobody to give it to. */
  read(onChunk: OnChunk): void;
  /**
   * Why what was read so far is not all that was sent, or undefined where it is.
   *
   * Asked when the stream has ended, failed or closed; Node reports the first and the last of these
   * alike for a clean end and for several that are not.
   */
  brokenReason(error?: NodeJS.ErrnoException): string | undefined;
  /** Tells the other end that something was lost. */
  reset(): void;
  /** Ends it once everything that was written has been sent; what still comes in is dropped. */
  finish(): void;
}

/** @param reader  the one that the socket was made with */
export function tcpEnd(socket: Socket, reader: SocketReader): End {
  return {
    stream: socket,
    collects: true,
    read: (onChunk) => {
      reader.onChunk = onChunk;
      socket.resume();
    },
    // One that breaks emits an error, and one that we reset does not: only its FIN is missing.
    brokenReason: (error) => {
      if (error) return error.code ?? error.message;
      return socket.destroyed && !socket.readableEnded ? "closed here" : undefined;
    },
    reset: () => {
      if (!socket.destroyed) socket.resetAndDestroy();
    },
    finish: () => socket.destroySoon(),
  };
}

/** @param sessionBroken  why the session is gone that the stream belongs to, if it is */
export function tunnelEnd(stream: Http2Stream, sessionBroken: () => string | undefined): End {
  return {
    stream,
    collects: false,
    read: (onChunk) => {
      // Not the listener itself: it would take what else Node may pass for an argument of its own.
      stream.on("data", (chunk: Buffer) => onChunk(chunk));
      stream.resume();
    },
    brokenReason: (error) => sessionBroken() ?? streamBroken(stream) ?? error?.message,
    reset: () => resetStream(stream),
    finish: () => {
      stream.end(() => stream.close(constants.NGHTTP2_CANCEL));
    },
  };
}

/**
 * Sends RST_STREAM with CONNECT_ERROR (RFC 9113, 8.5), and nothing before it.
 *
 * `close()` of node:http2 also ends the writable side, which goes out first, as a frame with
 * END_STREAM: a lost half of a download would then look like a complete one. With `_final()`
 * silenced, only RST_STREAM is sent.
 */
export function resetStream(stream: Http2Stream): void {
  if (stream.destroyed || stream.closed) return;
  stream._final = (callback) => callback();
  stream.close(constants.NGHTTP2_CONNECT_ERROR);
}

function streamBroken(stream: Http2Stream): string | undefined {
  switch (stream.rstCode) {
    case undefined:
    case constants.NGHTTP2_NO_ERROR:
      return undefined;
    case constants.NGHTTP2_CANCEL:
      // Other implementations of HBONE say this where a connection has simply ended. Node drops
      // what it had not handed over yet, though, and then the end is not the end.
      return stream.readableLength > 0 ? "stream cancelled" : undefined;
    default:
      return `stream reset: ${errorCodeName(stream.rstCode)}`;
  }
}

/** In the order of their numbers (RFC 9113, 7). */
const ERROR_CODES = [
  "NO_ERROR",
  "PROTOCOL_ERROR",
  "INTERNAL_ERROR",
  "FLOW_CONTROL_ERROR",
  "SETTINGS_TIMEOUT",
  "STREAM_CLOSED",
  "FRAME_SIZE_ERROR",
  "REFUSED_STREAM",
  "CANCEL",
  "COMPRESSION_ERROR",
  "CONNECT_ERROR",
  "ENHANCE_YOUR_CALM",
  "INADEQUATE_SECURITY",
  "HTTP_1_1_REQUIRED",
] as const;

/** The name of an error code of HTTP/2, or its number where it has none. */
export function errorCodeName(code: number): string {
  return ERROR_CODES[code] ?? String(code);
}
