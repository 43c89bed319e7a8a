/**
 * IP addresses and blocks of them, of both families.
 *
 * An `IpAddress` is its canonical text (RFC 5952 for IPv6), so that equal addresses are equal
 * strings and can be keys. An IPv4-mapped address is always written as the IPv4 address it holds.
 */
import type { Brand } from "./brand.ts";
import { MeshError } from "./errors.ts";

export type IpAddress = Brand<string, "IpAddress">;

/** An address with a port, 0 to 65535. */
export interface SocketAddress {
  readonly ip: IpAddress;
  readonly port: number;
}

/** All addresses that share the first `length` bits with `address`. Bits after them are zero. */
export interface IpBlock {
  readonly address: IpAddress;
  /** 0 to 32 for IPv4, 0 to 128 for IPv6. */
  readonly length: number;
}

const IPV4_BYTES = 4;
const IPV6_BYTES = 16;
const MAPPED_PREFIX = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff] as const;

/** @throws MeshError `ADDRESS_INVALID`; a zone (`%eth0`) or leading zeros are refused */
export function parseIp(text: string): IpAddress {
  const bytes = text.includes(":") ? parseIpv6(text) : parseIpv4(text);
  if (!bytes) throw new MeshError("ADDRESS_INVALID", `Cannot read address "${text}": not an IP`);
  return ipFromBytes(bytes);
}

/** @throws MeshError `ADDRESS_INVALID` unless there are 4 or 16 bytes, in network order */
export function ipFromBytes(bytes: Uint8Array): IpAddress {
  if (bytes.length === IPV4_BYTES) return bytes.join(".") as IpAddress;
  if (bytes.length !== IPV6_BYTES) {
    throw new MeshError("ADDRESS_INVALID", `Cannot read address: ${bytes.length} bytes long`);
  }
  if (MAPPED_PREFIX.every((byte, index) => bytes[index] === byte)) {
    return bytes.subarray(12).join(".") as IpAddress;
  }
  return writeIpv6(bytes) as IpAddress;
}

/** An IPv4-mapped address is IPv4 too, by the way it is written. */
export function isIpv4(ip: IpAddress): boolean {
  return !ip.includes(":");
}

/** 4 bytes for IPv4 and 16 for IPv6, in network order. */
export function ipToBytes(ip: IpAddress): Uint8Array {
  const bytes = isIpv4(ip) ? parseIpv4(ip) : parseIpv6(ip);
  if (!bytes) throw new TypeError(`"${ip}" is not a canonical address`);
  return bytes;
}

/** 16 bytes in network order; IPv4 in its IPv4-mapped form (RFC 4291, 2.5.5.2). */
export function ipToMappedBytes(ip: IpAddress): Uint8Array {
  const bytes = ipToBytes(ip);
  return bytes.length === IPV6_BYTES ? bytes : Uint8Array.from([...MAPPED_PREFIX, ...bytes]);
}

/** In 127.0.0.0/8, or ::1. */
export function isLoopback(ip: IpAddress): boolean {
  return ip === "::1" || ip.startsWith("127.");
}

/**
 * `10.0.0.0/8`, `2001:db8::/32`, or a bare address, which is a block of one.
 *
 * @throws MeshError `ADDRESS_INVALID`; a block with bits set behind its length is refused, since
 *   either its address or its length is then a typing error
 */
export function parseIpBlock(text: string): IpBlock {
  const [addressText = "", lengthText, ...rest] = text.split("/");
  const address = parseIp(addressText);
  const lengthMax = isIpv4(address) ? 32 : 128;
  const length = lengthText === undefined ? lengthMax : Number(lengthText);
  const wellFormed = lengthText === undefined || /^\d{1,3}$/.test(lengthText);
  if (rest.length > 0 || !wellFormed || length > lengthMax) {
    throw new MeshError("ADDRESS_INVALID", `Cannot read block "${text}": prefix length is wrong`);
  }
  if (!blockContains({ address: maskOf(address, length), length }, address)) {
    throw new TypeError(`masking "${text}" lost its prefix`);
  }
  if (maskOf(address, length) !== address) {
    const meant = `${maskOf(address, length)}/${length}`;
    const reason = `address has bits behind the prefix, "${meant}" has none`;
    throw new MeshError("ADDRESS_INVALID", `Cannot read block "${text}": ${reason}`);
  }
  return { address, length };
}

/**
 * The block of `length` bits that `ip` lies in: its bits behind them are cleared, not refused.
 *
 * @throws MeshError `ADDRESS_INVALID` where the family has no such length
 */
export function blockOf(ip: IpAddress, length: number): IpBlock {
  const lengthMax = isIpv4(ip) ? 32 : 128;
  if (!Number.isInteger(length) || length < 0 || length > lengthMax) {
    const reason = `a prefix length is from 0 to ${lengthMax}, not ${length}`;
    throw new MeshError("ADDRESS_INVALID", `Cannot make a block of "${ip}": ${reason}`);
  }
  return { address: maskOf(ip, length), length };
}

/** Whether `ip` lies in `block`. An address is never in a block of the other family. */
export function blockContains(block: IpBlock, ip: IpAddress): boolean {
  if (isIpv4(block.address) !== isIpv4(ip)) return false;
  return maskOf(ip, block.length) === maskOf(block.address, block.length);
}

/** `10.0.0.1:80` or `[2001:db8::1]:80`, as an authority writes it (RFC 3986, 3.2). */
export function formatSocketAddress({ ip, port }: SocketAddress): string {
  return isIpv4(ip) ? `${ip}:${port}` : `[${ip}]:${port}`;
}

/**
 * The inverse of `formatSocketAddress()`.
 *
 * @throws MeshError `ADDRESS_INVALID`; a host name is not an address
 */
export function parseSocketAddress(text: string): SocketAddress {
  const match = /^(?:\[([^\]]*)\]|([^:[\]]*)):(\d{1,5})$/.exec(text);
  const port = Number(match?.[3]);
  const host = match?.[1] ?? match?.[2];
  const isBracketed = match?.[1] !== undefined;
  if (host === undefined || port > 65_535 || isBracketed !== host.includes(":")) {
    throw new MeshError("ADDRESS_INVALID", `Cannot read "${text}": expected an address and a port`);
  }
  return { ip: parseIp(host), port };
}

function parseIpv4(text: string): Uint8Array | undefined {
  const parts = text.split(".");
  if (parts.length !== IPV4_BYTES || !parts.every((part) => /^(0|[1-9]\d{0,2})$/.test(part))) {
    return undefined;
  }
  const bytes = parts.map(Number);
  return bytes.every((byte) => byte <= 255) ? Uint8Array.from(bytes) : undefined;
}

function parseIpv6(text: string): Uint8Array | undefined {
  const halves = text.split("::");
  // An embedded IPv4 address is the end of the address (RFC 4291, 2.2).
  if (halves.length > 2 || (halves.length === 2 && halves[0]?.includes("."))) return undefined;
  const [head, tail] = halves.map((half) => groupsOf(half));
  if (head === undefined || (halves.length === 2 && tail === undefined)) return undefined;
  const missing = 8 - head.length - (tail?.length ?? 0);
  // "::" stands for at least one group (RFC 5952, 4.2.2 is about writing; RFC 4291, 2.2 about
  // this).
  if (halves.length === 2 ? missing < 1 : missing !== 0) return undefined;
  const groups = [...head, ...new Array<number>(missing).fill(0), ...(tail ?? [])];
  return Uint8Array.from(groups.flatMap((group) => [group >> 8, group & 0xff]));
}

function groupsOf(half: string): number[] | undefined {
  if (half === "") return [];
  const parts = half.split(":");
  const last = parts.at(-1) ?? "";
  const ipv4 = last.includes(".") ? parseIpv4(last) : undefined;
  if (last.includes(".") && !ipv4) return undefined;
  const hex = ipv4 ? parts.slice(0, -1) : parts;
  if (!hex.every((part) => /^[0-9a-fA-F]{1,4}$/.test(part))) return undefined;
  const groups = hex.map((part) => Number.parseInt(part, 16));
  const [a = 0, b = 0, c = 0, d = 0] = ipv4 ?? [];
  return ipv4 ? [...groups, (a << 8) | b, (c << 8) | d] : groups;
}

/** RFC 5952: lower case, no leading zeros, the first longest run of two or more zero groups cut. */
function writeIpv6(bytes: Uint8Array): string {
  const groups = Array.from({ length: 8 }, (_, index) => {
    return ((bytes[2 * index] ?? 0) << 8) | (bytes[2 * index + 1] ?? 0);
  });
  let start = 0;
  let longest = 1;
  for (let from = 0; from < groups.length; from++) {
    let to = from;
    while (groups[to] === 0) to++;
    if (to - from > longest) {
      start = from;
      longest = to - from;
    }
  }
  const hex = groups.map((group) => group.toString(16));
  if (longest < 2) return hex.join(":");
  return `${hex.slice(0, start).join(":")}::${hex.slice(start + longest).join(":")}`;
}

function maskOf(ip: IpAddress, length: number): IpAddress {
  const bytes = ipToBytes(ip);
  const masked = bytes.map((byte, index) => {
    const bits = Math.min(8, Math.max(0, length - 8 * index));
    return byte & (0xff00 >> bits);
  });
  return ipFromBytes(masked);
}
