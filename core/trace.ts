/**
 * What the diagnostic traces of a node tell: made by the agent (agent/trace/), shown by the CLI.
 * On the wire between the two, each `TraceLine` is a line of JSON.
 */
import type { IpAddress, SocketAddress } from "./ip.ts";

export const TRACE_NAMES = [
  "refused-connects",
  "resets",
  "handshakes",
  "retransmits",
  "ring-buffers",
] as const;
export type TraceName = (typeof TRACE_NAMES)[number];

/** Only what is of this pod. What is left out does not choose. */
export interface TraceFilter {
  /** Inode of a network namespace, as `stat /run/netns/NAME` shows it. */
  readonly netns?: number;
  /** Inode of a cgroup's directory; groups below it are others. */
  readonly cgroup?: number;
  /** Events with one of them at either end. */
  readonly addresses?: readonly IpAddress[];
}

/** Where a socket belongs. */
interface Owner {
  /** When the agent read the event, in milliseconds since the epoch. */
  readonly atMs: number;
  /** Inode of the socket's network namespace; 0 where the kernel does not tell. */
  readonly netns: number;
  /** Id of the cgroup that the socket was made in; 0 where there was no (whole) socket. */
  readonly cgroup: number;
}

interface Process {
  /** As the host numbers it; 0 where the attempt began before the trace. */
  readonly pid: number;
  /** The process's name for itself, which it may choose freely. */
  readonly comm: string;
}

export interface RefusedConnect extends Owner, Process {
  readonly kind: "refused";
  /** Whether connect(2) failed before a SYN left, or the SYN had no good answer. */
  readonly stage: "connect" | "handshake";
  /** "EPERM", "ECONNREFUSED", …; "none" where the process gave up before there was an answer. */
  readonly error: string;
  readonly protocol: "tcp" | "udp" | "other";
  /** What the process passed to connect(2); absent where the attempt began before the trace. */
  readonly asked?: SocketAddress;
  /** Both absent in stage "connect". A hook may have made `destination` of `asked`. */
  readonly source?: SocketAddress;
  readonly destination?: SocketAddress;
}

export interface Reset extends Owner {
  readonly kind: "reset";
  readonly direction: "sent" | "received";
  /** The kernel's word for why it was sent; absent where the kernel gives none. */
  readonly reason?: string;
  /** TCP state of the socket; "none" where there was no socket. */
  readonly state: string;
  /** This host's end, whichever end sent it. */
  readonly source: SocketAddress;
  readonly destination: SocketAddress;
}

export interface SlowHandshake extends Owner, Process {
  readonly kind: "slow-handshake";
  /** From the SYN to the state ESTABLISHED, at the side that connects. */
  readonly latencyUs: number;
  readonly source: SocketAddress;
  readonly destination: SocketAddress;
}

export interface Retransmit extends Owner {
  readonly kind: "retransmit";
  readonly segment: "syn" | "syn-ack" | "data";
  readonly state: string;
  /** Of this connection, up to now; 0 for a SYN-ACK. */
  readonly retransmits: number;
  /** Smoothed round trip; 0 where none has been measured yet. */
  readonly srttUs: number;
  readonly source: SocketAddress;
  readonly destination: SocketAddress;
}

/** One second of a BPF ring buffer. */
export interface RingBufferLevel {
  readonly kind: "ring-buffer";
  readonly atMs: number;
  readonly map: string;
  readonly fd: number;
  readonly sizeBytes: number;
  /** Written by the kernel and not yet read. */
  readonly waitingBytes: number;
  /** The most that waited in this second, of 100 looks. */
  readonly peakBytes: number;
  /** In this second; 0 in the first line of a ring. */
  readonly writtenBytes: number;
}

export type TraceEvent = RefusedConnect | Reset | SlowHandshake | Retransmit | RingBufferLevel;

/** Things about the trace itself, which a reader must know to judge its events. */
export type TraceNotice =
  /** All tracepoints are attached. What happened before is not seen. */
  | { readonly kind: "started"; readonly variant: string }
  /** Events that were not handed on, since there were more in this second than allowed. */
  | { readonly kind: "dropped"; readonly count: number }
  /** Events that the kernel could not hand to bpftrace, whose buffer was full. */
  | { readonly kind: "lost"; readonly count: number }
  /** A line that is none of the script's, shortened to 200 characters. */
  | { readonly kind: "unparsed"; readonly line: string; readonly reason: string }
  /** What bpftrace said besides. */
  | { readonly kind: "warning"; readonly text: string };

export interface LatencyBucket {
  readonly fromUs: number;
  /** Inclusive. */
  readonly toUs: number;
  readonly count: number;
}

export interface TraceSummary {
  readonly name: TraceName;
  readonly durationMs: number;
  readonly endedBy: "duration" | "caller";
  /** Handed on; with `dropped` and `filtered`, all that were read. */
  readonly events: number;
  readonly dropped: number;
  /** Left out by the filter's addresses; netns and cgroup choose in the kernel. */
  readonly filtered: number;
  readonly lost: number;
  readonly unparsed: number;
  /**
   * What the kernel counted, dropped and lost events included: by error, by direction, by outcome,
   * by segment, or the peak in bytes by descriptor.
   */
  readonly totals: Readonly<Record<string, number>>;
  /** Of all handshakes, in powers of two; empty for other traces. */
  readonly latencies: readonly LatencyBucket[];
  /** False where bpftrace had to be killed before it printed its totals. */
  readonly isComplete: boolean;
}

/** One line of the stream. The last one is a summary or an error; without either it was cut off. */
export type TraceLine =
  | { readonly type: "event"; readonly event: TraceEvent }
  | { readonly type: "notice"; readonly notice: TraceNotice }
  | { readonly type: "summary"; readonly summary: TraceSummary }
  | { readonly type: "error"; readonly error: string };
