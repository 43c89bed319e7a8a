/**
 * What node:net knows about a TCP socket but does not say in public.
 *
 * Everything of Node that is used here without being documented is in this file, and held by its
 * tests on the Node version that package.json pins.
 */
import { Socket, type SocketConstructorOpts } from "node:net";
import type { TLSSocket } from "node:tls";
import { MeshError } from "#core/errors.ts";
import { parseIp, type SocketAddress } from "#core/ip.ts";

/** Idle time before the first probe, and between probes. */
export const KEEPALIVE_DELAY_MS = 180_000;

/** @throws MeshError `KERNEL_CALL_FAILED` where the socket is closed */
export function fdOf(socket: Socket): number {
  const { _handle: handle } = socket as unknown as { _handle?: { fd?: number } | null };
  const fd = handle?.fd;
  if (fd === undefined || fd < 0) {
    throw new MeshError("KERNEL_CALL_FAILED", "Cannot read the descriptor: socket is closed");
  }
  return fd;
}

/** The socket that a server's TLS socket was made over. */
export function underlyingSocketOf(socket: TLSSocket): Socket | undefined {
  return (socket as unknown as { _parent?: Socket })._parent;
}

/**
 * The same connection as another object, which is paused and reads in a way that a server cannot
 * ask for. The one that the server made is of no use any more.
 */
export function takeOver(accepted: Socket, options: SocketConstructorOpts): Socket {
  const inner = accepted as unknown as { _handle: unknown };
  const undocumented = { handle: inner._handle, pauseOnCreate: true };
  inner._handle = null;
  accepted.destroy();
  return new Socket(Object.assign(undocumented, options));
}

/** Both ends of a connection, or undefined where it is already gone. */
export function endsOf(
  socket: Socket,
): { readonly peer: SocketAddress; readonly local: SocketAddress } | undefined {
  const peer = socketAddress(socket.remoteAddress, socket.remotePort);
  const local = socketAddress(socket.localAddress, socket.localPort);
  return peer && local ? { peer, local } : undefined;
}

/** @param ip  of a link-local address with its zone, which is left out */
export function socketAddress(
  ip: string | undefined,
  port: number | undefined,
): SocketAddress | undefined {
  if (ip === undefined || port === undefined) return undefined;
  return { ip: parseIp(ip.replace(/%.*$/, "")), port };
}
