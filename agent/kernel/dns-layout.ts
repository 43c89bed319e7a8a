/** bpf/include/dns_layout.h as JavaScript sees it, in the order of that file. See layout.ts. */
import { ipFromBytes, ipToMappedBytes, type SocketAddress } from "#core/ip.ts";
import { ADDR } from "./layout.ts";

export const DNS_PORT = 53;
export const DNS_SLOTS_PER_FAMILY = 4;
/** Those of IPv4, then those of IPv6. */
export const DNS_SLOTS = 8;

export const DNS_POD = { struct: "dns_pod", bytes: 16, offset: { port: 0 } } as const;

export const DNS_SLOT_KEY = {
  struct: "dns_slot_key",
  bytes: 16,
  offset: { netns: 0, slot: 8, pad: 12 },
} as const;

/** `enum dns_outcome`: a value's index here is its number there. */
export const DNS_COUNTERS = [
  "captured",
  "answered",
  "agentsOwn",
  "self",
  "onDevice",
  "noSlot",
] as const;
export type DnsCounter = (typeof DNS_COUNTERS)[number];

/** @param ports  of each slot, 0 where it has none */
export function encodeDnsPod(ports: readonly number[]): Uint8Array {
  const bytes = new Uint8Array(DNS_POD.bytes);
  const view = new DataView(bytes.buffer);
  for (const [slot, port] of ports.entries()) view.setUint16(slot * 2, port, true);
  return bytes;
}

export function decodeDnsPod(bytes: Uint8Array): readonly number[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return Array.from({ length: DNS_SLOTS }, (_, slot) => view.getUint16(slot * 2, true));
}

export function encodeDnsSlotKey(netns: bigint, slot: number): Uint8Array {
  const bytes = new Uint8Array(DNS_SLOT_KEY.bytes);
  const view = new DataView(bytes.buffer);
  view.setBigUint64(DNS_SLOT_KEY.offset.netns, netns, true);
  view.setUint32(DNS_SLOT_KEY.offset.slot, slot, true);
  return bytes;
}

/** `struct addr` by itself, as `dns_servers` has it. */
export function encodeAddr({ ip, port }: SocketAddress): Uint8Array {
  const bytes = new Uint8Array(ADDR.bytes);
  bytes.set(ipToMappedBytes(ip), ADDR.offset.ip);
  new DataView(bytes.buffer).setUint16(ADDR.offset.port, port, true);
  return bytes;
}

export function decodeAddr(bytes: Uint8Array): SocketAddress {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const ip = ipFromBytes(bytes.subarray(ADDR.offset.ip, ADDR.offset.ip + 16));
  return { ip, port: view.getUint16(ADDR.offset.port, true) };
}
