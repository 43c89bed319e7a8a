/**
 * Makes a TCP connection over a socket of somebody else: in a netns, marked, bound.
 */
import { type OnReadOpts, Socket } from "node:net";
import { reasonOf } from "#core/errors.ts";
import { formatSocketAddress } from "#core/ip.ts";
import type { ConnectFailure, Dial } from "./engine.ts";
import { type Failed, failed } from "./parts.ts";
import { KEEPALIVE_DELAY_MS } from "./socket.ts";

export type DialResult = { readonly kind: "connected"; readonly socket: Socket } | Failed;

/** Of the socket, as in node:net. */
export interface DialOptions {
  /** Whether our own direction outlives the end of the other one. */
  readonly allowHalfOpen: boolean;
  readonly highWaterMark: number;
  readonly onread?: OnReadOpts;
}

/**
 * @param signal  gives the attempt up
 * @returns a socket that is paused: nothing has been read from it yet
 */
export function dial(
  { openSocket, address, timeoutMs }: Dial,
  options: DialOptions,
  signal?: AbortSignal,
): Promise<DialResult> {
  return new Promise((resolve) => {
    let socket: Socket;
    try {
      socket = adopt(openSocket(), options);
    } catch (error) {
      resolve(failed("unreachable", `no socket to reach ${name()}: ${reasonOf(error)}`));
      return;
    }

    const timer = setTimeout(() => {
      const hint = address.port === 15008 ? "; a NetworkPolicy may block port 15008" : "";
      settle(failed("timedOut", `${name()} did not answer within ${timeoutMs} ms${hint}`));
    }, timeoutMs);
    const onAbort = () => settle(failed("downstreamClosed", "the other side went away"));
    const onConnect = () => settle({ kind: "connected", socket });
    const onError = (error: NodeJS.ErrnoException) => {
      settle(failed(kindOf(error.code), `${name()}: ${error.code ?? error.message}`));
    };

    socket.once("connect", onConnect);
    socket.once("error", onError);
    // It may fail again while it is closed, or between its connection and whoever takes it over.
    socket.on("error", () => {});
    if (signal?.aborted) onAbort();
    else {
      signal?.addEventListener("abort", onAbort);
      // Paused before it is connected, or Node would start to read on its own.
      socket.pause();
      socket.connect({ host: address.ip, port: address.port });
    }

    function settle(result: DialResult): void {
      clearTimeout(timer);
      signal?.removeEventListener("abort", onAbort);
      socket.off("connect", onConnect);
      socket.off("error", onError);
      if (result.kind === "failed") socket.destroy();
      resolve(result);
    }
  });

  function name(): string {
    return formatSocketAddress(address);
  }
}

function adopt(fd: number, options: DialOptions): Socket {
  // Started by hand, or Node would try to read before there is a connection.
  const socket = new Socket({ ...options, fd, ...{ manualStart: true } });
  socket.setNoDelay(true);
  socket.setKeepAlive(true, KEEPALIVE_DELAY_MS);
  return socket;
}

function kindOf(code: string | undefined): ConnectFailure["kind"] {
  switch (code) {
    case "ECONNREFUSED":
    case "ECONNRESET":
    case "EPERM":
    case "EACCES":
      return "refused";
    case "ETIMEDOUT":
      return "timedOut";
    default:
      return "unreachable";
  }
}
