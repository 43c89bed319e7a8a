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
export const ABI = 2;

/** In an enrolled pod, which ports are the mesh's own (Istio uses the same three). */
export const OUT_PORT = 15_001;
export const IN_PORT = 15_006;
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
export const NOTE_KINDS = ["none", "origDst", "captured", "agent", "realPeer", "direct"] as const;
export type NoteKind = (typeof NOTE_KINDS)[number];

/** `enum note_flag`, in the pad of a note's address. */
export const NOTE_FLAGS = { elsewhere: 1 } as const;

export const POD_CFG = {
  struct: "pod_cfg",
  bytes: 40,
  offset: { ip4: 0, ip6: 4, id: 20, flags: 24, out_port: 28, dns_port: 30, gen: 32 },
} as const;

/** `enum pod_flag`. */
export const POD_FLAGS = { blocked: 1, direct: 2 } as const;

export const LOCAL_IP = {
  struct: "local_ip",
  bytes: 16,
  offset: { netns: 0, id: 8, pad: 12 },
} as const;

export const ATTEST = {
  struct: "attest",
  bytes: 24,
  offset: { netns: 0, t_ns: 8, src_id: 16, flags: 20 },
} as const;

export const POLICY_KEY = {
  struct: "policy_key",
  bytes: 12,
  offset: { dst_id: 0, src_id: 4, port: 8, pad: 10 },
} as const;

export const POLICY_VAL = {
  struct: "policy_val",
  bytes: 12,
  offset: { verdict: 0, rule: 4, gen: 8 },
} as const;

/** `enum policy_verdict`: a value's index here is its number there. */
export const POLICY_VERDICTS = ["agent", "allow", "deny"] as const;
export type PolicyVerdict = (typeof POLICY_VERDICTS)[number];

export const SERVICE = {
  struct: "service",
  bytes: 12,
  offset: { set: 0, local: 4, total: 8 },
} as const;

export const ENDPOINT_KEY = {
  struct: "endpoint_key",
  bytes: 8,
  offset: { set: 0, slot: 4 },
} as const;

/** `enum listener_slot`: a value's index here is its number there. */
export const LISTENER_SLOTS = ["in4", "in6", "out4", "out6", "hbone4", "hbone6"] as const;
export type ListenerSlot = (typeof LISTENER_SLOTS)[number];

export const MESH_META = {
  struct: "mesh_meta",
  bytes: 8,
  offset: { abi: 0, next_id: 4 },
} as const;

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
  "direct",
  "denied",
  "attested",
  "attestFull",
  "forged",
  "inDirect",
  "inDenied",
] as const;
export type Counter = (typeof COUNTERS)[number];

export interface Note {
  readonly kind: NoteKind;
  /** Undefined where the note names none. */
  readonly address: SocketAddress | undefined;
  /** Number of the class of the pod that connects, 0 where it is not known. */
  readonly sourceId: number;
  /** A draw among the service's endpoints fell on one that is not of this node. */
  readonly isElsewhere: boolean;
}

export interface PodConfig {
  readonly addresses: readonly IpAddress[];
  /** Of its class; 0 where it has none. */
  readonly id: number;
  readonly blocked: boolean;
  readonly direct: boolean;
  readonly generation: bigint;
}

export function encodeNote({ kind, address, sourceId, isElsewhere }: Note): Uint8Array {
  const bytes = new Uint8Array(NOTE.bytes);
  const view = viewOf(bytes);
  if (address !== undefined) bytes.set(encodeAddress(address), NOTE.offset.a);
  view.setUint32(NOTE.offset.kind, NOTE_KINDS.indexOf(kind), true);
  view.setUint32(NOTE.offset.src_id, sourceId, true);
  const flags = isElsewhere ? NOTE_FLAGS.elsewhere : 0;
  view.setUint16(NOTE.offset.a + ADDR.offset.pad, flags, true);
  return bytes;
}

/** @throws RangeError where the kind is none that this version knows */
export function decodeNote(bytes: Uint8Array): Note {
  const view = viewOf(bytes);
  const number = view.getUint32(NOTE.offset.kind, true);
  const kind = NOTE_KINDS[number];
  if (kind === undefined) throw new RangeError(`${number} is no kind of note`);
  const address = decodeAddress(bytes.subarray(NOTE.offset.a, NOTE.offset.a + ADDR.bytes));
  return {
    kind,
    address: address.port === 0 ? undefined : address,
    sourceId: view.getUint32(NOTE.offset.src_id, true),
    isElsewhere:
      (view.getUint16(NOTE.offset.a + ADDR.offset.pad, true) & NOTE_FLAGS.elsewhere) !== 0,
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
  const flags = (config.blocked ? POD_FLAGS.blocked : 0) | (config.direct ? POD_FLAGS.direct : 0);
  view.setUint32(POD_CFG.offset.flags, flags, true);
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
    direct: (view.getUint32(POD_CFG.offset.flags, true) & POD_FLAGS.direct) !== 0,
    generation: view.getBigUint64(POD_CFG.offset.gen, true),
  };
}

export function encodeAddress({ ip, port }: SocketAddress): Uint8Array {
  const bytes = new Uint8Array(ADDR.bytes);
  bytes.set(ipToMappedBytes(ip), ADDR.offset.ip);
  viewOf(bytes).setUint16(ADDR.offset.port, port, true);
  return bytes;
}

export function decodeAddress(bytes: Uint8Array): SocketAddress {
  return {
    ip: ipFromBytes(bytes.subarray(ADDR.offset.ip, ADDR.offset.ip + 16)),
    port: viewOf(bytes).getUint16(ADDR.offset.port, true),
  };
}

/** `netns` is a cookie. */
export interface LocalIp {
  readonly netns: bigint;
  readonly id: number;
}

export function encodeLocalIp({ netns, id }: LocalIp): Uint8Array {
  const bytes = new Uint8Array(LOCAL_IP.bytes);
  const view = viewOf(bytes);
  view.setBigUint64(LOCAL_IP.offset.netns, netns, true);
  view.setUint32(LOCAL_IP.offset.id, id, true);
  return bytes;
}

export function decodeLocalIp(bytes: Uint8Array): LocalIp {
  const view = viewOf(bytes);
  return {
    netns: view.getBigUint64(LOCAL_IP.offset.netns, true),
    id: view.getUint32(LOCAL_IP.offset.id, true),
  };
}

/** Of a flow_key: the side that connects, and the other. */
export function decodeFlow(bytes: Uint8Array): readonly [SocketAddress, SocketAddress] {
  const { src, dst } = FLOW_KEY.offset;
  return [
    decodeAddress(bytes.subarray(src, src + ADDR.bytes)),
    decodeAddress(bytes.subarray(dst, dst + ADDR.bytes)),
  ];
}

/** Which network namespace a connection was opened in: its cookie. */
export function decodeAttestedNetns(bytes: Uint8Array): bigint {
  return viewOf(bytes).getBigUint64(ATTEST.offset.netns, true);
}

export interface PolicyRow {
  readonly destination: number;
  /** 0 for any. */
  readonly source: number;
  /** 0 for any. */
  readonly port: number;
  readonly verdict: PolicyVerdict;
  /** A number for the policy that decides; 0 for none. */
  readonly rule: number;
}

export function encodePolicyKey({ destination, source, port }: PolicyRow): Uint8Array {
  const bytes = new Uint8Array(POLICY_KEY.bytes);
  const view = viewOf(bytes);
  view.setUint32(POLICY_KEY.offset.dst_id, destination, true);
  view.setUint32(POLICY_KEY.offset.src_id, source, true);
  view.setUint16(POLICY_KEY.offset.port, port, true);
  return bytes;
}

export function encodePolicyValue({ verdict, rule }: PolicyRow, generation: number): Uint8Array {
  const bytes = new Uint8Array(POLICY_VAL.bytes);
  const view = viewOf(bytes);
  view.setUint32(POLICY_VAL.offset.verdict, POLICY_VERDICTS.indexOf(verdict), true);
  view.setUint32(POLICY_VAL.offset.rule, rule, true);
  view.setUint32(POLICY_VAL.offset.gen, generation, true);
  return bytes;
}

export interface ServiceValue {
  readonly set: number;
  readonly local: number;
  readonly total: number;
}

export function encodeService({ set, local, total }: ServiceValue): Uint8Array {
  return new Uint8Array(Uint32Array.of(set, local, total).buffer);
}

export function decodeService(bytes: Uint8Array): ServiceValue {
  const view = viewOf(bytes);
  return {
    set: view.getUint32(SERVICE.offset.set, true),
    local: view.getUint32(SERVICE.offset.local, true),
    total: view.getUint32(SERVICE.offset.total, true),
  };
}

export function encodeEndpointKey(set: number, slot: number): Uint8Array {
  return new Uint8Array(Uint32Array.of(set, slot).buffer);
}

export interface Meta {
  readonly abi: number;
  readonly nextId: number;
}

export function encodeMeta({ abi, nextId }: Meta): Uint8Array {
  return new Uint8Array(Uint32Array.of(abi, nextId).buffer);
}

export function decodeMeta(bytes: Uint8Array): Meta {
  const view = viewOf(bytes);
  return {
    abi: view.getUint32(MESH_META.offset.abi, true),
    nextId: view.getUint32(MESH_META.offset.next_id, true),
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
