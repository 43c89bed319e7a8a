import type { Server, Socket } from "node:net";
import { addon, naming } from "./addon.ts";

/** Makes `close()` of the socket send a reset instead of a FIN, and drop what is unsent. */
export function setLingerReset(fd: number): void {
  naming("set SO_LINGER", () => addon.setLingerReset(fd));
}

/** The kernel's own name for a socket: no other has it, nor will a later one. */
export function socketCookie(fd: number): bigint {
  return naming("read SO_COOKIE", () => addon.socketCookie(fd));
}

/** What the kernel has measured of a connection so far. */
export interface TcpInfo {
  /** Smoothed round-trip time, in microseconds; 0 before the first sample. */
  readonly rttUs: number;
  /** Segments that were sent again. */
  readonly retransmits: number;
}

export function tcpInfo(fd: number): TcpInfo {
  return naming("read TCP_INFO", () => addon.tcpInfo(fd));
}

/**
 * Lets no other socket bind the address of this one. Node's UDP sockets allow it (SO_REUSEADDR),
 * and whoever binds last then gets the datagrams.
 */
export function claimAddress(fd: number): void {
  naming("clear SO_REUSEADDR", () => addon.claimAddress(fd));
}

/** Closes a descriptor that Node does not own, like those of `Netns`. */
export function closeDescriptor(fd: number): void {
  naming("close a descriptor", () => addon.closeDescriptor(fd));
}

/**
 * The descriptor behind a socket or server, or undefined once it is closed.
 *
 * Node has no public way to it, and the kernel's socket storage is keyed by descriptor. It stays
 * Node's: never close it, never keep it across a turn of the event loop.
 */
export function fdOf(socket: Socket | Server): number | undefined {
  // The handle is not part of Node's types.
  const { _handle: handle } = socket as { _handle?: { readonly fd?: unknown } | null };
  const fd = handle?.fd;
  return typeof fd === "number" && fd >= 0 ? fd : undefined;
}
