/** What went over the wire between the nodes, by tcpdump: the demo believes only this. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { readFile } from "node:fs/promises";
import { DIES_WITH_US } from "./runtime.ts";

export interface Segment {
  readonly sourcePort: number;
  readonly destinationPort: number;
  readonly payload: Buffer;
}

export class Capture {
  readonly #process: ChildProcess;
  readonly #path: string;

  private constructor(process: ChildProcess, path: string) {
    this.#process = process;
    this.#path = path;
  }

  /** Begins to write the TCP packets of a network namespace to `path`. */
  static async start(netns: string, path: string): Promise<Capture> {
    const enter = ["nsenter", `--net=/run/netns/${netns}`];
    // As root (-Z): a process that changes its user does not get the signal.
    const tcpdump = ["tcpdump", "-Z", "root", "-i", "any", "-U", "-s", "0", "-w", path, "tcp"];
    const command = [...DIES_WITH_US, ...enter, ...tcpdump];
    const child = spawn("setpriv", command, { stdio: ["ignore", "ignore", "pipe"] });
    const failed = once(child, "exit").then(([code]) => {
      throw new Error(`Cannot capture packets in "${netns}": tcpdump exited with ${code}`);
    });
    const listening = once(child.stderr, "data");
    await Promise.race([listening, failed]);
    failed.catch(() => undefined); // from here on the exit is what stop() waits for
    child.stderr.resume();
    return new Capture(child, path);
  }

  /** Ends it. Safe to call twice. */
  async stop(): Promise<void> {
    if (this.#process.exitCode !== null || this.#process.signalCode !== null) return;
    const exited = once(this.#process, "exit");
    this.#process.kill("SIGINT");
    await exited;
  }

  /** What it has written, once it is stopped. */
  async segments(): Promise<readonly Segment[]> {
    return readSegments(await readFile(this.#path));
  }
}

/** Link header lengths, and where each holds the EtherType (LINKTYPE_ETHERNET, _SLL, _SLL2). */
const LINKS: Readonly<Record<number, { readonly bytes: number; readonly etherType: number }>> = {
  1: { bytes: 14, etherType: 12 },
  113: { bytes: 16, etherType: 14 },
  276: { bytes: 20, etherType: 0 },
};

const FILE_HEADER_BYTES = 24;
const PACKET_HEADER_BYTES = 16;

/** The TCP segments with payload of a pcap file in this machine's byte order. */
export function readSegments(file: Buffer): readonly Segment[] {
  const link = LINKS[file.readUInt32LE(20)];
  if (link === undefined) throw new Error("Cannot read capture: unknown link type");
  const segments: Segment[] = [];
  for (let at = FILE_HEADER_BYTES; at + PACKET_HEADER_BYTES <= file.length; ) {
    const bytes = file.readUInt32LE(at + 8);
    const packet = file.subarray(at + PACKET_HEADER_BYTES, at + PACKET_HEADER_BYTES + bytes);
    at += PACKET_HEADER_BYTES + bytes;
    if (packet.length < link.bytes) continue;
    const segment = tcpOf(packet.readUInt16BE(link.etherType), packet.subarray(link.bytes));
    if (segment && segment.payload.length > 0) segments.push(segment);
  }
  return segments;
}

function tcpOf(etherType: number, packet: Buffer): Segment | undefined {
  const isIpv6 = etherType === 0x86dd;
  if (!isIpv6 && etherType !== 0x0800) return undefined;
  const headerBytes = isIpv6 ? 40 : ((packet[0] ?? 0) & 0x0f) * 4;
  const end = isIpv6 ? 40 + packet.readUInt16BE(4) : packet.readUInt16BE(2);
  const tcp = packet.subarray(headerBytes, end);
  if (tcp.length < 20) return undefined;
  return {
    sourcePort: tcp.readUInt16BE(0),
    destinationPort: tcp.readUInt16BE(2),
    payload: tcp.subarray(((tcp[12] ?? 0) >> 4) * 4),
  };
}
