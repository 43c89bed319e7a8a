/** The kernel side of DNS capture: whose it is, and which of our sockets answers for whom. */
import { type IpAddress, isIpv4, type SocketAddress } from "#core/ip.ts";
import type { BpfMap } from "#native/kernel/index.ts";
import {
  DNS_COUNTERS,
  DNS_PORT,
  DNS_SLOTS,
  DNS_SLOTS_PER_FAMILY,
  type DnsCounter,
  decodeAddr,
  decodeDnsPod,
  encodeAddr,
  encodeDnsPod,
  encodeDnsSlotKey,
} from "./dns-layout.ts";
import { encodeUint32, encodeUint64, sumPerCpu } from "./layout.ts";
import type { Pins } from "./pins.ts";
import { installOnCgroup, openObject } from "./programs.ts";

const MAPS = ["dns_pods", "dns_servers", "dns_counters"] as const;
type DnsMaps = Readonly<Record<(typeof MAPS)[number], BpfMap>>;

const PROGRAMS = [
  // First those that answer: a query that is sent before they are there would not know its answer.
  ...["dns_recvmsg4", "dns_recvmsg6", "dns_peer4", "dns_peer6"],
  ...["dns_connect4", "dns_connect6", "dns_sendmsg4", "dns_sendmsg6"],
] as const;

/** Where the agent answers a pod's queries. */
export interface DnsListeners {
  /** Of each slot, on 127.0.0.1 for the first four and on ::1 for the others; 0 for none. */
  readonly ports: readonly number[];
  /** Nameservers that have a slot from the start, in order of importance. */
  readonly nameservers: readonly IpAddress[];
}

/** Puts the programs in force, or takes over those that are pinned. */
export function installDns(pins: Pins, objectDir: string, cgroupRoot: string): DnsCapture {
  const object = openObject(pins, objectDir, "dns.bpf.o");
  try {
    for (const name of MAPS) object.setPinPath(name, pins.map(name));
    object.load();
    const maps: DnsMaps = {
      dns_pods: object.openMap("dns_pods"),
      dns_servers: object.openMap("dns_servers"),
      dns_counters: object.openMap("dns_counters"),
    };
    for (const program of PROGRAMS) installOnCgroup(object, program, pins, cgroupRoot);
    return new DnsCapture(maps);
  } finally {
    object.close();
  }
}

/** Of all pods, by the cookie of their network namespace. */
export class DnsCapture {
  readonly #maps: DnsMaps;

  constructor(maps: DnsMaps) {
    this.#maps = maps;
  }

  /** Sends the pod's queries to `listeners`, or leaves them alone where there are none. */
  set(netns: bigint, listeners: DnsListeners | undefined): void {
    if (listeners === undefined) {
      this.remove(netns);
      return;
    }
    for (const ip of listeners.nameservers) this.#give(netns, { ip, port: DNS_PORT });
    this.#maps.dns_pods.update(encodeUint64(netns), encodeDnsPod(listeners.ports));
  }

  /** The ports that are in force, also those of an agent that is dead; undefined for none. */
  portsOf(netns: bigint): readonly number[] | undefined {
    const bytes = this.#maps.dns_pods.lookup(encodeUint64(netns));
    return bytes && decodeDnsPod(bytes);
  }

  /** The nameserver that the pod asked by way of a slot. */
  serverOf(netns: bigint, slot: number): SocketAddress | undefined {
    const bytes = this.#maps.dns_servers.lookup(encodeDnsSlotKey(netns, slot));
    return bytes && decodeAddr(bytes);
  }

  remove(netns: bigint): void {
    this.#maps.dns_pods.delete(encodeUint64(netns));
    for (let slot = 0; slot < DNS_SLOTS; slot++) {
      this.#maps.dns_servers.delete(encodeDnsSlotKey(netns, slot));
    }
  }

  counters(): Readonly<Record<DnsCounter, number>> {
    const counts = DNS_COUNTERS.map((name, index) => {
      const bytes = this.#maps.dns_counters.lookup(encodeUint32(index));
      return [name, bytes === undefined ? 0 : sumPerCpu(bytes)] as const;
    });
    // Complete: made from the list of all counters.
    return Object.fromEntries(counts) as Record<DnsCounter, number>;
  }

  close(): void {
    for (const map of Object.values(this.#maps)) map.close();
  }

  /** Nothing where it has a slot, or where all are taken: those that are asked first come first. */
  #give(netns: bigint, server: SocketAddress): void {
    const first = isIpv4(server.ip) ? 0 : DNS_SLOTS_PER_FAMILY;
    for (let slot = first; slot < first + DNS_SLOTS_PER_FAMILY; slot++) {
      const taken = this.serverOf(netns, slot);
      if (taken?.ip === server.ip) return;
      if (taken !== undefined) continue;
      this.#maps.dns_servers.update(encodeDnsSlotKey(netns, slot), encodeAddr(server));
      return;
    }
  }
}
