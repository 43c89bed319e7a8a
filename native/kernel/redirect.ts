import { type IpAddress, ipFromBytes, ipToBytes, type SocketAddress } from "#core/ip.ts";
import { addon, naming } from "./addon.ts";

/**
 * Where an accepted connection was going before NAT changed it (SO_ORIGINAL_DST).
 *
 * @returns undefined where conntrack does not know the connection; its own local end where it was
 *   not changed
 */
export function originalDestination(fd: number): SocketAddress | undefined {
  const bytes = naming("find an original destination", () => addon.originalDestination(fd));
  if (bytes === null) return undefined;
  const ip = bytes.subarray(0, -2);
  const [high = 0, low = 0] = bytes.subarray(-2);
  return { ip: ipFromBytes(ip), port: high * 256 + low };
}

/** Marks each packet that the socket sends (SO_MARK). Needs CAP_NET_RAW or CAP_NET_ADMIN. */
export function setMark(fd: number, mark: number): void {
  naming("set SO_MARK", () => addon.setMark(fd, mark));
}

/**
 * Binds a socket to an address that this host need not have (IP_TRANSPARENT). The port is chosen
 * when it connects. Packets to it come back only where routing says so.
 *
 * @param ip  of the socket's family
 */
export function bindTransparent(fd: number, ip: IpAddress): void {
  naming(`bind a socket to ${ip}`, () => addon.bindTransparent(fd, ipToBytes(ip)));
}
