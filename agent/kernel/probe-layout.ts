/** bpf/include/probe_layout.h as JavaScript sees it, in the order of that file. See layout.ts. */
import { type IpAddress, ipToMappedBytes, parseIp } from "#core/ip.ts";

/** Of all pods of a node. */
export const PROBE_PORTS_MAX = 16_384;
export const STRICT_NAMESERVERS = 6;

/** bpf/include/probe.h: what probes come from. The same two as in Istio's ambient mode. */
export const PROBE_SOURCES = {
  ipv4: parseIp("169.254.7.127"),
  ipv6: parseIp("fd16:9254:7127:1337:ffff:ffff:ffff:ffff"),
} as const;

/** `enum probe_outcome`: a value's index here is its number there. */
export const PROBE_COUNTERS = [
  "probeMarked",
  "probeNotBound",
  "probeLetIn",
  "probeUndeclared",
] as const;

/** `enum strict_mode`. */
export const STRICT_MODES = { report: 1, enforce: 2 } as const;
export type StrictMode = keyof typeof STRICT_MODES;

/** `enum strict_outcome`: a value's index here is its number there. */
export const STRICT_COUNTERS = [
  "strictBlockedTcp",
  "strictBlockedProtocol",
  "strictReportedTcp",
  "strictReportedProtocol",
] as const;

/** Named apart from those of layout.ts, so that all of them can be told together. */
export type GuardCounter = (typeof PROBE_COUNTERS)[number] | (typeof STRICT_COUNTERS)[number];

export const STRICT_NAMESERVER = {
  struct: "strict_nameserver",
  bytes: 16,
  offset: { ip: 0 },
} as const;

/** The constant `nameservers` of a pod's instance. @throws RangeError where there are too many */
export function encodeNameservers(addresses: readonly IpAddress[]): Uint8Array {
  if (addresses.length > STRICT_NAMESERVERS) {
    throw new RangeError(`${addresses.length} nameservers are more than ${STRICT_NAMESERVERS}`);
  }
  const bytes = new Uint8Array(STRICT_NAMESERVERS * STRICT_NAMESERVER.bytes);
  for (const [index, ip] of addresses.entries()) {
    bytes.set(ipToMappedBytes(ip), index * STRICT_NAMESERVER.bytes);
  }
  return bytes;
}
