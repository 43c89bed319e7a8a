/**
 * bpf/include/mesh_layout.h as JavaScript sees it: offsets, sizes and codecs, in the order of that
 * file. layout.test.ts holds each table against the BTF of the built object.
 *
 * Addresses stand in network order; everything else is little-endian, as amd64 and arm64 are.
 */
import {
  type IpAddress,
  ipFromBytes,
  ipToBytes,
  ipToMappedBytes,
  isIpv4,
  type SocketAddress,
} from "#core/ip.ts";

/** Layout of the maps. Pinned maps of another one are not touched. */
export const ABI = 1;

/** In an enrolled pod, where its own connections and tunnels go (Istio uses the same two). */
export const OUT_PORT = 15_001;
export const HBONE_PORT = 15_008;

export const ADDR = { struct: "addr", bytes: 20, offset: { ip: 0, port: 16, pad: 18 } } as const;

export const FLOW_KEY = { struct: "flow_key", bytes: 40, offset: { src: 0, dst: 20 } } as const;

export const HANDOFF_KEY = {
  struct: "handoff_key",
  bytes: 48,
  offset: { flow: 0, netns: 40 },
} as const;

export const NOTE = {
  struct: "note",
  bytes: 28,
  offset: { a: 0, kind: 20, src_id: 24 },
} as const;

/** `enum note_kind`: a value's index here is its number there. */
export const NOTE_KINDS = ["none", "origDst", "captured", "agent", "realPeer"] as const;
export type NoteKind = (typeof NOTE_KINDS)[number];

export const POD_CFG = {
  struct: "pod_cfg",
  bytes: 40,
  offset: { ip4: 0, ip6: 4, id: 20, flags: 24, out_port: 28, dns_port: 30, gen: 32 },
} as const;

/** `enum pod_flag`. */
export const POD_FLAGS = { blocked: 1 } as const;

/** `enum listener_slot`: a value's index here is its number there. */
export const LISTENER_SLOTS = ["in4", "in6", "out4", "out6", "hbone4", "hbone6"] as const;
export type ListenerSlot = (typeof LISTENER_SLOTS)[number];

export const MESH_META = { struct: "mesh_meta", bytes: 4, offset: { abi: 0 } } as const;

/** `enum mesh_outcome`: a value's index here is its number there. */
export const COUNTERS = [
  "notEnrolled",
  "agentsOwn",
  "self",
  "notTcp",
  "captured",
  "blocked",
  "noMemory",
  "noAddress",
  "handedOver",
  "handoffFull",
  "takenOver",
  "takeoverFailed",
  "peerAnswered",
  "inNotTcp",
  "inSelf",
  "inOutbound",
  "inTunnel",
  "inPlaintext",
  "inNoListener",
  "inNotAssigned",
] as const;
export type Counter = (typeof COUNTERS)[number];

export interface Note {
  readonly kind: NoteKind;
  /** Undefined where the note names none. */
  readonly address: SocketAddress | undefined;
  readonly sourceId: number;
}

export interface PodConfig {
  readonly addresses: readonly IpAddress[];
  readonly id: number;
  readonly blocked: boolean;
  readonly generation: bigint;
}

export function encodeNote({ kind, address, sourceId }: Note): Uint8Array {
  const bytes = new Uint8Array(NOTE.bytes);
  const view = viewOf(bytes);
  if (address !== undefined) {
    bytes.set(ipToMappedBytes(address.ip), NOTE.offset.a + ADDR.offset.ip);
    view.setUint16(NOTE.offset.a + ADDR.offset.port, address.port, true);
  }
  view.setUint32(NOTE.offset.kind, NOTE_KINDS.indexOf(kind), true);
  view.setUint32(NOTE.offset.src_id, sourceId, true);
  return bytes;
}

/** @throws RangeError where the kind is none that this version knows */
export function decodeNote(bytes: Uint8Array): Note {
  const view = viewOf(bytes);
  const number = view.getUint32(NOTE.offset.kind, true);
  const kind = NOTE_KINDS[number];
  if (kind === undefined) throw new RangeError(`${number} is no kind of note`);
  const port = view.getUint16(NOTE.offset.a + ADDR.offset.port, true);
  const from = NOTE.offset.a + ADDR.offset.ip;
  return {
    kind,
    address: port === 0 ? undefined : { ip: ipFromBytes(bytes.subarray(from, from + 16)), port },
    sourceId: view.getUint32(NOTE.offset.src_id, true),
  };
}

/** An address family that is not among `addresses` is left zero, which means "has none". */
export function encodePodConfig(config: PodConfig): Uint8Array {
  const bytes = new Uint8Array(POD_CFG.bytes);
  const view = viewOf(bytes);
  for (const ip of config.addresses) {
    bytes.set(ipToBytes(ip), isIpv4(ip) ? POD_CFG.offset.ip4 : POD_CFG.offset.ip6);
  }
  view.setUint32(POD_CFG.offset.id, config.id, true);
  view.setUint32(POD_CFG.offset.flags, config.blocked ? POD_FLAGS.blocked : 0, true);
  view.setUint16(POD_CFG.offset.out_port, OUT_PORT, true);
  view.setBigUint64(POD_CFG.offset.gen, config.generation, true);
  return bytes;
}

export function decodePodConfig(bytes: Uint8Array): PodConfig {
  const view = viewOf(bytes);
  const ip4 = bytes.subarray(POD_CFG.offset.ip4, POD_CFG.offset.ip4 + 4);
  const ip6 = bytes.subarray(POD_CFG.offset.ip6, POD_CFG.offset.ip6 + 16);
  const isSet = (ip: Uint8Array) => ip.some((byte) => byte !== 0);
  return {
    addresses: [ip4, ip6].filter(isSet).map((ip) => ipFromBytes(ip)),
    id: view.getUint32(POD_CFG.offset.id, true),
    blocked: (view.getUint32(POD_CFG.offset.flags, true) & POD_FLAGS.blocked) !== 0,
    generation: view.getBigUint64(POD_CFG.offset.gen, true),
  };
}

/** A number as a map's key or a program's constant has it. */
export function encodeUint16(value: number): Uint8Array {
  return new Uint8Array(Uint16Array.of(value).buffer);
}

export function encodeUint32(value: number): Uint8Array {
  return new Uint8Array(Uint32Array.of(value).buffer);
}

export function encodeUint64(value: bigint): Uint8Array {
  return new Uint8Array(BigUint64Array.of(value).buffer);
}

/** The sum of a per-CPU counter. */
export function sumPerCpu(bytes: Uint8Array): number {
  const view = viewOf(bytes);
  let sum = 0n;
  for (let offset = 0; offset < bytes.length; offset += 8) sum += view.getBigUint64(offset, true);
  return Number(sum);
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
