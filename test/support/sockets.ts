/**
 * Raw sockets for tests without privileges and without the addon.
 *
 * Node makes such a socket as soon as one of its handles is bound. The handle is then forgotten:
 * it is never closed, so that the descriptor belongs to whoever asked for it.
 */

interface TcpHandle {
  readonly fd: number;
  bind(ip: string, port: number): number;
  bind6(ip: string, port: number, flags: number): number;
}

interface TcpBinding {
  readonly TCP: new (kind: number) => TcpHandle;
  readonly constants: { readonly SOCKET: number };
}

/**
 * A TCP socket that is bound to a loopback address, and neither listens nor connects.
 *
 * @param port  0 for one that is free
 */
export function boundSocket(ip = "127.0.0.1", port = 0): number {
  // Internal to Node, which has no other way to make a socket and hand out its descriptor.
  const node = process as unknown as { binding(name: "tcp_wrap"): TcpBinding };
  const { TCP, constants } = node.binding("tcp_wrap");
  const handle = new TCP(constants.SOCKET);
  const status = ip.includes(":") ? handle.bind6(ip, port, 0) : handle.bind(ip, port);
  if (status !== 0 || handle.fd < 0) throw new Error(`Cannot bind a socket to ${ip}: ${status}`);
  forgotten.push(handle);
  return handle.fd;
}

interface UdpHandle {
  readonly fd: number;
  bind(ip: string, port: number, flags: number): number;
}

/** A UDP socket that is bound to a free port of 127.0.0.1. */
export function boundUdpSocket(): number {
  // As above.
  const node = process as unknown as {
    binding(name: "udp_wrap"): { readonly UDP: new () => UdpHandle };
  };
  const { UDP } = node.binding("udp_wrap");
  const handle = new UDP();
  const status = handle.bind("127.0.0.1", 0, 0);
  if (status !== 0 || handle.fd < 0) throw new Error(`Cannot bind a UDP socket: ${status}`);
  forgotten.push(handle);
  return handle.fd;
}

/** Held, because a handle that is collected would close the descriptor. */
const forgotten: (TcpHandle | UdpHandle)[] = [];
