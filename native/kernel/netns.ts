import { formatSocketAddress, type IpAddress, ipToBytes, type SocketAddress } from "#core/ip.ts";
import { addon, naming } from "./addon.ts";

export type Family = "ipv4" | "ipv6";

export interface SocketOptions {
  readonly family: Family;
  /** Local address. The port is chosen when the socket connects, by the whole tuple. */
  readonly bind?: IpAddress;
}

export interface ListenOptions {
  readonly ip: IpAddress;
  /** 0 lets the kernel choose. */
  readonly port: number;
  /** Connections that may wait to be accepted; the kernel cuts it to net.core.somaxconn. */
  readonly backlog: number;
}

export interface UdpSocketOptions {
  readonly family: Family;
  /** Local address; port 0 lets the kernel choose. */
  readonly bind?: SocketAddress;
}

const ANY = { ipv4: new Uint8Array(4), ipv6: new Uint8Array(16) } as const;

/**
 * Opens the network namespace at `target`, or the one that the process with that id is in.
 *
 * @throws MeshError `KERNEL_CALL_FAILED` where nothing is there, or something else
 */
export function openNetns(target: string | number): Netns {
  const path = typeof target === "number" ? `/proc/${target}/ns/net` : target;
  return new Netns(
    path,
    naming(`open network namespace "${path}"`, () => addon.openNetns(path)),
  );
}

/** A network namespace, kept alive until `close()`. Made by `openNetns()`. */
export class Netns {
  readonly path: string;
  /** Belongs to this object. */
  readonly fd: number;

  constructor(path: string, fd: number) {
    this.path = path;
    this.fd = fd;
  }

  /** Unique on this host since boot, never reused (SO_NETNS_COOKIE, socket(7)). */
  cookie(): bigint {
    return naming(`identify network namespace "${this.path}"`, () => addon.netnsCookie(this.fd));
  }

  /**
   * A TCP socket of this namespace: not blocking, closed on exec, not connected yet.
   *
   * @returns a descriptor that belongs to the caller
   */
  openSocket({ family, bind }: SocketOptions): number {
    const ip = bind === undefined ? ANY[family] : ipToBytes(bind);
    if (ip.length !== ANY[family].length) throw new TypeError(`"${bind}" is not ${family}`);
    return naming(`open a socket in network namespace "${this.path}"`, () =>
      addon.netnsSocket(this.fd, ip, 0, bind !== undefined),
    );
  }

  /**
   * A listening TCP socket of this namespace, for one family only.
   *
   * SO_REUSEADDR is set: accepted connections occupy their port in the pod's table, and without the
   * option an application could not listen on that port again while one of them lives.
   *
   * @returns a descriptor that belongs to the caller
   */
  listen({ ip, port, backlog }: ListenOptions): number {
    return naming(`listen on ${ip} port ${port} in network namespace "${this.path}"`, () =>
      addon.netnsListen(this.fd, ipToBytes(ip), port, backlog),
    );
  }

  /**
   * A UDP socket of this namespace: not blocking, closed on exec, not connected, for one family.
   *
   * @returns a descriptor that belongs to the caller
   */
  openUdpSocket({ family, bind }: UdpSocketOptions): number {
    const ip = bind === undefined ? ANY[family] : ipToBytes(bind.ip);
    if (ip.length !== ANY[family].length) throw new TypeError(`"${bind?.ip}" is not ${family}`);
    return naming(`open a UDP socket in network namespace "${this.path}"`, () =>
      addon.netnsUdpSocket(this.fd, ip, bind?.port ?? 0, bind !== undefined),
    );
  }

  /**
   * Ends the TCP connection from `local` to `peer` at once, as far as this namespace has a part in
   * it: a reset goes out, and whoever uses the socket gets ECONNABORTED.
   *
   * @returns false where there is no such connection
   */
  destroyTcp(local: SocketAddress, peer: SocketAddress): boolean {
    const ends = `${formatSocketAddress(local)} to ${formatSocketAddress(peer)}`;
    return naming(`destroy the connection from ${ends}`, () =>
      addon.netnsDestroyTcp(
        this.fd,
        ipToBytes(local.ip),
        local.port,
        ipToBytes(peer.ip),
        peer.port,
      ),
    );
  }

  close(): void {
    addon.closeDescriptor(this.fd);
  }
}
