/** The kernel's account of connections: puts the program in force, and reads what it writes. */

import type { BpfMap } from "#native/kernel/index.ts";
import { RingBuffer } from "#native/kernel/index.ts";
import {
  DENY_EVENT,
  type DenyEvent,
  decodeDenyEvent,
  decodeFlowEvent,
  FLOW_EVENT,
  FLOW_LOSS_NAMES,
  type FlowEvent,
  type FlowLoss,
} from "./flow-layout.ts";
import { encodeUint32, sumPerCpu } from "./layout.ts";
import type { Pins } from "./pins.ts";
import { installOnCgroup, openObject } from "./programs.ts";

const OBJECT = "flows.bpf.o";
const PROGRAM = "flow_sockops";
const MAPS = ["flows", "flow_socks"] as const;

/** Why events did not arrive: `flow_losses`, and what this side cannot read. */
export type FlowLosses = Readonly<Record<FlowLoss | "unreadable", number>>;

/** After the programs whose notes it reads. Puts it in force, or a newer one in its place. */
export function installFlows(pins: Pins, objectDir: string, cgroupRoot: string): void {
  const object = openObject(pins, objectDir, OBJECT);
  try {
    for (const name of MAPS) object.setPinPath(name, pins.map(name));
    object.load();
    installOnCgroup(object, PROGRAM, pins, cgroupRoot);
  } finally {
    object.close();
  }
}

export interface FlowRingPaths {
  readonly flows: string;
  readonly denies: string;
}

/**
 * The one reader of both rings. Two at once would each miss what the other reads: an agent that
 * hands over closes its reader first, and what is in the rings by then is its successor's.
 */
export class FlowReader {
  readonly #flows: RingBuffer;
  readonly #denies: RingBuffer;
  readonly #losses: BpfMap;
  #undecodable = 0;

  /** @param losses  stays the caller's to close */
  constructor(paths: FlowRingPaths, losses: BpfMap) {
    this.#losses = losses;
    this.#flows = new RingBuffer(paths.flows);
    try {
      this.#denies = new RingBuffer(paths.denies);
    } catch (error) {
      this.#flows.close();
      throw error;
    }
  }

  /** Calls `onWoken` at a refusal, and where the ring of flows has filled by a quarter. Once. */
  watch(onWoken: () => void): void {
    this.#flows.watch(onWoken);
    this.#denies.watch(onWoken);
  }

  /** What has been refused since the last call. */
  takeDenies(): readonly DenyEvent[] {
    return this.#take(this.#denies, DENY_EVENT.bytes, decodeDenyEvent);
  }

  /** What has opened and closed since the last call, in order. */
  takeFlows(): readonly FlowEvent[] {
    return this.#take(this.#flows, FLOW_EVENT.bytes, decodeFlowEvent);
  }

  /** Events that were not delivered, since the pins were made; `unreadable` in this process. */
  losses(): FlowLosses {
    const counts = FLOW_LOSS_NAMES.map((name, index) => {
      const bytes = this.#losses.lookup(encodeUint32(index));
      return [name, bytes === undefined ? 0 : sumPerCpu(bytes)] as const;
    });
    const foreign = this.#flows.foreignRecords + this.#denies.foreignRecords;
    const unreadable = foreign + this.#undecodable;
    // Complete: made from the list of all of them.
    return { ...(Object.fromEntries(counts) as Record<FlowLoss, number>), unreadable };
  }

  close(): void {
    this.#flows.close();
    this.#denies.close();
  }

  #take<Event>(
    ring: RingBuffer,
    recordBytes: number,
    decode: (view: DataView, at: number) => Event,
  ): readonly Event[] {
    const batch = ring.drain(recordBytes);
    const events: Event[] = [];
    for (let at = 0; batch !== undefined && at < batch.byteLength; at += recordBytes) {
      try {
        events.push(decode(batch, at));
      } catch (error) {
        // Written by programs of another version, whose link is about to be replaced.
        if (!(error instanceof RangeError)) throw error;
        this.#undecodable++;
      }
    }
    return events;
  }
}
