/**
 * bpf/include/flow_layout.h as JavaScript sees it. flow-layout.test.ts holds each table against the
 * BTF of the built object.
 */
import { ipFromBytes, type SocketAddress } from "#core/ip.ts";
import { ADDR, COUNTERS, type Counter, FLOW_KEY } from "./layout.ts";

export const FLOW_EVENT = {
  struct: "flow_event",
  bytes: 128,
  offset: {
    ...{ at_ns: 0, netns: 8, socket: 16, sent_bytes: 24, received_bytes: 32, duration_ns: 40 },
    ...{ flow: 48, dialled: 88, src_id: 108, dst_id: 112, srtt_us: 116, retransmits: 120 },
    ...{ kind: 124, role: 125, flags: 126, pad: 127 },
  },
} as const;

export const DENY_EVENT = {
  struct: "deny_event",
  bytes: 80,
  offset: {
    ...{ at_ns: 0, netns: 8, flow: 16, src_id: 56, dst_id: 60, rule: 64, generation: 68 },
    ...{ outcome: 72, pad: 76 },
  },
} as const;

/** `enum flow_kind`: a value's index here is its number there. */
export const FLOW_KINDS = ["opened", "closed"] as const;

/** `enum flow_role`: a value's index here is its number there. */
export const FLOW_ROLE_NAMES = [
  ...(["plainOut", "plainIn", "directOut", "directIn"] as const),
  ...(["captured", "agentIn", "agentOut", "appIn"] as const),
] as const;
export type FlowRole = (typeof FLOW_ROLE_NAMES)[number];

/** `enum flow_flag`. */
export const FLOW_FLAGS = { wasOpen: 1, reset: 2 } as const;

/** `enum flow_loss`: a value's index here is its number there. */
export const FLOW_LOSS_NAMES = ["flows", "denies", "untracked"] as const;
export type FlowLoss = (typeof FLOW_LOSS_NAMES)[number];

/** What the kernel says of one socket of an enrolled pod. */
export interface FlowEvent {
  /** `closed` is the last of a socket, and the only one where it never opened. */
  readonly kind: (typeof FLOW_KINDS)[number];
  readonly role: FlowRole;
  /** The kernel's monotonic clock. */
  readonly atNs: bigint;
  /** Cookie of the pod's network namespace. */
  readonly netns: bigint;
  /** Cookie of the socket: the same in both events of it. */
  readonly socket: bigint;
  /** Payload that the other end has acknowledged. */
  readonly sentBytes: number;
  readonly receivedBytes: number;
  readonly durationMs: number;
  /** The connecting end. */
  readonly source: SocketAddress;
  readonly destination: SocketAddress;
  /** Where the application wanted to go, where that was another address. */
  readonly dialled: SocketAddress | undefined;
  /** Numbers of the pods' classes, 0 where the kernel does not vouch for it. */
  readonly sourceId: number;
  readonly destinationId: number;
  /** Smoothed round-trip time. */
  readonly rttUs: number;
  readonly retransmits: number;
  /** Its handshake had been completed. */
  readonly wasOpen: boolean;
  /** It did not end in order. */
  readonly reset: boolean;
}

/** A connection that a program of ours refused. */
export interface DenyEvent {
  readonly atNs: bigint;
  /** Cookie of the network namespace: of the connecting pod, or of the one it was refused at. */
  readonly netns: bigint;
  /** Port 0 where it was refused at connect(). */
  readonly source: SocketAddress;
  readonly destination: SocketAddress;
  readonly sourceId: number;
  readonly destinationId: number;
  /** Number of the policy in the table of `generation`; 0 where it was not policy. */
  readonly rule: number;
  readonly generation: number;
  readonly outcome: Counter;
}

/** @throws RangeError at a value that this version does not know */
export function decodeFlowEvent(view: DataView, at = 0): FlowEvent {
  const { offset } = FLOW_EVENT;
  const flags = view.getUint8(at + offset.flags);
  const dialled = addressAt(view, at + offset.dialled);
  const big = (from: number) => view.getBigUint64(at + from, true);
  return {
    kind: named(FLOW_KINDS, view.getUint8(at + offset.kind), "kind of flow event"),
    role: named(FLOW_ROLE_NAMES, view.getUint8(at + offset.role), "role of a socket"),
    atNs: big(offset.at_ns),
    netns: big(offset.netns),
    socket: big(offset.socket),
    sentBytes: Number(big(offset.sent_bytes)),
    receivedBytes: Number(big(offset.received_bytes)),
    durationMs: Number(big(offset.duration_ns)) / 1e6,
    source: addressAt(view, at + offset.flow + FLOW_KEY.offset.src),
    destination: addressAt(view, at + offset.flow + FLOW_KEY.offset.dst),
    dialled: dialled.port === 0 ? undefined : dialled,
    sourceId: view.getUint32(at + offset.src_id, true),
    destinationId: view.getUint32(at + offset.dst_id, true),
    rttUs: view.getUint32(at + offset.srtt_us, true),
    retransmits: view.getUint32(at + offset.retransmits, true),
    wasOpen: (flags & FLOW_FLAGS.wasOpen) !== 0,
    reset: (flags & FLOW_FLAGS.reset) !== 0,
  };
}

/** @throws RangeError at a value that this version does not know */
export function decodeDenyEvent(view: DataView, at = 0): DenyEvent {
  const { offset } = DENY_EVENT;
  return {
    atNs: view.getBigUint64(at + offset.at_ns, true),
    netns: view.getBigUint64(at + offset.netns, true),
    source: addressAt(view, at + offset.flow + FLOW_KEY.offset.src),
    destination: addressAt(view, at + offset.flow + FLOW_KEY.offset.dst),
    sourceId: view.getUint32(at + offset.src_id, true),
    destinationId: view.getUint32(at + offset.dst_id, true),
    rule: view.getUint32(at + offset.rule, true),
    generation: view.getUint32(at + offset.generation, true),
    outcome: named(COUNTERS, view.getUint32(at + offset.outcome, true), "outcome"),
  };
}

function addressAt(view: DataView, at: number): SocketAddress {
  const ip = new Uint8Array(view.buffer, view.byteOffset + at + ADDR.offset.ip, 16);
  return { ip: ipFromBytes(ip), port: view.getUint16(at + ADDR.offset.port, true) };
}

function named<Name>(names: readonly Name[], number: number, what: string): Name {
  const name = names[number];
  if (name === undefined) throw new RangeError(`${number} is no ${what}`);
  return name;
}
