/** Asks the nameserver that a pod wanted to ask, on the pod's behalf, and repeats its answer. */
import { createSocket } from "node:dgram";
import { reasonOf } from "#core/errors.ts";
import { formatSocketAddress, isIpv4, type SocketAddress } from "#core/ip.ts";
import { dial } from "#wire/hbone/dial.ts";
import type { Timers } from "../timers.ts";
import { answers, Deframer, framed } from "./dns-message.ts";

export interface Forwarder {
  /** A socket in the pod's namespace that its capture leaves alone. The caller owns it. */
  openUdp(family: "ipv4" | "ipv6"): number;
  openTcp(family: "ipv4" | "ipv6"): number;
  readonly timers: Timers;
  /** For the whole of it. */
  readonly timeoutMs: number;
  /** Gives everything up. */
  readonly signal: AbortSignal;
}

export type Forwarded =
  | { readonly kind: "answered"; readonly bytes: Buffer }
  | { readonly kind: "failed"; readonly reason: string };

/** The query goes out from a port of its own and as it came, so that its number stays the guess. */
export function forwardOverUdp(
  forwarder: Forwarder,
  server: SocketAddress,
  query: Buffer,
): Promise<Forwarded> {
  const family = isIpv4(server.ip) ? "ipv4" : "ipv6";
  return new Promise((resolve) => {
    const socket = createSocket(family === "ipv4" ? "udp4" : "udp6");
    const settle = settleOnce(forwarder, server, resolve, () => socket.close());
    socket.on("error", (error) => settle.fail(reasonOf(error)));
    socket.on("message", (bytes) => {
      if (answers(bytes, query)) settle.answer(bytes);
    });
    // Connected: the kernel then drops what comes from elsewhere, and tells of a closed port.
    socket.on("connect", () => socket.send(query));
    try {
      socket.bind({ fd: forwarder.openUdp(family) });
      socket.connect(server.port, server.ip);
    } catch (error) {
      settle.fail(reasonOf(error));
    }
  });
}

/** Over a connection of its own: resolvers seldom ask more than once over TCP. */
export function forwardOverTcp(
  forwarder: Forwarder,
  server: SocketAddress,
  query: Buffer,
): Promise<Forwarded> {
  const family = isIpv4(server.ip) ? "ipv4" : "ipv6";
  const { timeoutMs, signal } = forwarder;
  return new Promise((resolve) => {
    const cancelled = new AbortController();
    const settle = settleOnce(forwarder, server, resolve, () => cancelled.abort());
    const request = { openSocket: () => forwarder.openTcp(family), address: server, timeoutMs };
    const options = { allowHalfOpen: false, highWaterMark: 65_536 };
    void dial(request, options, signal).then((result) => {
      if (result.kind === "failed") return settle.fail(result.failure.reason);
      const { socket } = result;
      const deframer = new Deframer();
      if (cancelled.signal.aborted) return socket.destroy();
      cancelled.signal.addEventListener("abort", () => socket.destroy());
      socket.on("data", (chunk: Buffer) => {
        const found = deframer.push(chunk).find((bytes) => answers(bytes, query));
        if (found !== undefined) settle.answer(found);
      });
      socket.on("error", (error) => settle.fail(reasonOf(error)));
      socket.on("close", () => settle.fail("it closed the connection"));
      socket.write(framed(query));
      return socket.resume();
    });
  });
}

/** The first outcome counts; a timer and the signal see to it that there is one. */
function settleOnce(
  { timers, timeoutMs, signal }: Forwarder,
  server: SocketAddress,
  resolve: (forwarded: Forwarded) => void,
  release: () => void,
) {
  let isSettled = false;
  const settle = (forwarded: Forwarded) => {
    if (isSettled) return;
    isSettled = true;
    cancelTimer();
    signal.removeEventListener("abort", onAbort);
    release();
    resolve(forwarded);
  };
  const fail = (reason: string) => {
    settle({ kind: "failed", reason: `nameserver ${formatSocketAddress(server)}: ${reason}` });
  };
  const onAbort = () => fail("the pod has left");
  const cancelTimer = timers.after(timeoutMs, () => fail(`no answer within ${timeoutMs} ms`));
  signal.addEventListener("abort", onAbort);
  return { fail, answer: (bytes: Buffer) => settle({ kind: "answered", bytes }) };
}
