/**
 * The kernel side of the mesh on one node, as the rest of the agent sees it.
 *
 * Everything is pinned (`pins.ts`), so that it outlives the agent: a connection of an enrolled pod
 * is then refused, never let through. A later `openDatapath()` with the same pins takes over.
 */
import { join } from "node:path";
import type { IpAddress, SocketAddress } from "#core/ip.ts";
import type { BpfMap, Netns } from "#native/kernel/index.ts";
import { checkCgroupRoot } from "./cgroup.ts";
import { checkPod } from "./check-pod.ts";
import { DirectTables } from "./direct-tables.ts";
import { type DnsCapture, type DnsListeners, installDns } from "./dns.ts";
import type { DnsCounter } from "./dns-layout.ts";
import { FlowReader, installFlows } from "./flow-events.ts";
import {
  COUNTERS,
  type Counter,
  decodeNote,
  encodeNote,
  encodeUint32,
  encodeUint64,
  LISTENER_SLOTS,
  type ListenerSlot,
  sumPerCpu,
} from "./layout.ts";
import { Pins } from "./pins.ts";
import { PodEntry } from "./pod-entry.ts";
import type { GuardCounter } from "./probe-layout.ts";
import { type ProbeOptions, ProbeSource } from "./probe-source.ts";
import {
  checkAbi,
  checkAbiOf,
  installCgroupPrograms,
  installInstance,
  type SharedMaps,
} from "./programs.ts";
import { type StrictEgress, setStrictEgress, strictCounters } from "./strict-egress.ts";

export interface DatapathOptions {
  /** Where on a BPF file system the pins are; one agent's own, made where it is missing. */
  readonly pinDir: string;
  /**
   * The part of the cgroup2 tree that pods and agent live in; the agent is refused outside of it.
   * Must not lie in another agent's part, or both have their say on one socket.
   */
  readonly cgroupRoot: string;
  /** Where the compiled objects (`*.bpf.o`) are. */
  readonly objectDir: string;
  /** Without it, probes from the node are connections like others. */
  readonly probes?: ProbeOptions | undefined;
}

export interface CapturedPod {
  /** Kubernetes' uid of the pod: letters, digits, `-` and `_`. */
  readonly uid: string;
  /** Only used during the call; stays the caller's to close. */
  readonly netns: Netns;
  /** One or two: not more than one of a family. */
  readonly addresses: readonly IpAddress[];
  /** 1 to 2^32-1. Pods that no verdict can tell apart may share one. */
  readonly id: number;
  /** On which the node's prober reaches the pod, whatever its policies say. */
  readonly probePorts?: readonly number[] | undefined;
  readonly strictEgress?: StrictEgress | undefined;
}

/**
 * Descriptors of listening sockets in the pod's network namespace. They stay the caller's.
 *
 * - `in4`, `in6`: connections from outside the mesh, to any port
 * - `out4`, `out6`: the pod's own connections
 * - `hbone4`, `hbone6`: tunnels, connections to port 15008
 */
export type Listeners = { readonly [slot in ListenerSlot]?: number };

/** Where a captured connection was going. */
export interface OriginalDestination extends SocketAddress {
  /** The kernel drew one of the service's endpoints, and it is on another node. */
  readonly isElsewhere?: boolean;
}

/** The capture of one pod's connections. */
export interface PodCapture {
  readonly uid: string;
  /**
   * Sends new connections to these listeners. A slot without one refuses. A listener that is
   * closed leaves its slot by itself; one that is replaced keeps what it has already queued.
   */
  setListeners(listeners: Listeners): void;
  /** From now on outbound connections are captured instead of failing with EPERM. Idempotent. */
  unblock(): void;
  /** New outbound connections fail with EPERM. Idempotent. */
  block(): void;
  /** Answers the pod's DNS queries over UDP; undefined leaves them alone. */
  setDns(listeners: DnsListeners | undefined): void;
  /** The ports of the last `setDns()`, maybe of an agent that is dead: keep them if you can. */
  dnsPorts(): readonly number[] | undefined;
  /** The nameserver that was asked by way of the port of a slot. */
  dnsServer(slot: number): SocketAddress | undefined;
  /** Un-enrols the pod: new connections are left alone. Those that are captured go on. */
  remove(): void;
}

/** The means by which pods are captured on this host; the first is the best. */
export const RUNGS = ["ebpf", "nftables"] as const;
export type Rung = (typeof RUNGS)[number];

export type ListenerRole = "outbound" | "inbound" | "hbone";

/** How the agent's sockets in a pod's namespace have to be where capture does not find any. */
export interface FixedSockets {
  listenAt(role: ListenerRole, family: "ipv4" | "ipv6"): SocketAddress;
  /**
   * Where a connection that the inbound listener accepted was going: its local end does not tell.
   *
   * @returns undefined where nobody knows
   */
  arrivedAt(fd: number): SocketAddress | undefined;
}

export interface Datapath {
  readonly rung: Rung;
  /**
   * Undefined where listeners may be anywhere, and accepted sockets have the ends that the client
   * saw. With it, `markAgentSocket()` binds a socket that shows a client: leave it unbound.
   */
  readonly fixedSockets: FixedSockets | undefined;
  /** Which pods may talk to each other without the agent; undefined where all need it. */
  readonly direct?: DirectTables | undefined;
  /**
   * Puts a pod under capture, blocked until `unblock()`, refused inbound until `setListeners()`.
   * A pod that was enrolled before, by this agent or by a dead one, is taken over as it is.
   *
   * @throws MeshError `REQUEST_REFUSED` where the pod cannot be enrolled as described, and then
   *   nothing has happened; `KERNEL_CALL_FAILED`, and then it is blocked: try again, or `forget()`
   */
  enrol(pod: CapturedPod): PodCapture;
  /** The uids that pins exist for, of dead network namespaces too. */
  adopted(): readonly string[];
  /** Un-enrols a pod by its pins alone, whether its network namespace still exists or not. */
  forget(uid: string): void;
  /**
   * Where a connection that the outbound listener accepted was going.
   *
   * @param fd  of the accepted socket, see `fdOf()`
   * @returns undefined where it was not captured: refuse it
   */
  originalDestination(fd: number): OriginalDestination | undefined;
  /**
   * Exempts a socket of the agent from capture. Call before it connects.
   *
   * @param showClient  what the application that accepts it will see as its peer
   */
  markAgentSocket(fd: number, showClient?: SocketAddress): void;
  /** How often each outcome occurred since the pins were made. */
  counters(): Readonly<Record<Counter, number>>;
  /** The same for DNS. */
  dnsCounters(): Readonly<Record<DnsCounter, number>>;
  /**
   * Has the kernel tell of connections from now on, and becomes the one who is told.
   *
   * @returns undefined where this rung tells nothing; else the caller's to close, before another
   *   process opens its own
   */
  openFlows(): FlowReader | undefined;
  /** The same for probes and strict egress. */
  guardCounters(): Readonly<Record<GuardCounter, number>>;
  /**
   * Attaches to the prober's cgroup anew, where that has been made anew.
   *
   * @returns whether probes are marked now
   * @throws MeshError `KERNEL_CALL_FAILED`
   */
  refreshProbes(): boolean;
  /** Gives up what this process holds; capture stays in force. */
  close(): void;
  /** Un-enrols all pods and removes every trace. */
  uninstall(): void;
}

/**
 * Looks whether this agent can work with what is pinned, and touches nothing.
 *
 * @throws MeshError `KERNEL_UNSUPPORTED` where the pins are of an agent with another layout
 */
export function checkPins(pinDir: string): void {
  checkAbiOf(join(pinDir, "maps", "meta"));
}

/**
 * Puts the datapath of one agent in force, or takes over the one that its pins hold.
 *
 * @throws MeshError `SETTINGS_INVALID` where an option cannot be; `KERNEL_UNSUPPORTED` where the
 *   pins are of an agent with another layout; `KERNEL_CALL_FAILED`
 */
export function openDatapath(options: DatapathOptions): Datapath {
  checkCgroupRoot(options.cgroupRoot);
  const pins = new Pins(options.pinDir);
  checkAbi(pins);
  const maps = installCgroupPrograms(pins, options.objectDir, options.cgroupRoot);
  const dns = installDns(pins, options.objectDir, options.cgroupRoot);
  const probes = new ProbeSource(pins, options.objectDir, options.probes);
  probes.start();
  return new PinnedDatapath(pins, maps, dns, probes, options);
}

class PinnedDatapath implements Datapath {
  readonly rung = "ebpf";
  readonly fixedSockets = undefined;
  readonly direct: DirectTables;
  readonly #pins: Pins;
  readonly #maps: SharedMaps;
  readonly #dns: DnsCapture;
  readonly #probes: ProbeSource;
  readonly #objectDir: string;
  readonly #cgroupRoot: string;
  readonly #captures = new Map<string, PinnedCapture>();

  constructor(
    pins: Pins,
    maps: SharedMaps,
    dns: DnsCapture,
    probes: ProbeSource,
    { objectDir, cgroupRoot }: DatapathOptions,
  ) {
    this.#pins = pins;
    this.#maps = maps;
    this.#dns = dns;
    this.#probes = probes;
    this.#objectDir = objectDir;
    this.#cgroupRoot = cgroupRoot;
    this.direct = new DirectTables(maps, (uid) => this.#entryOf(uid));
  }

  enrol(pod: CapturedPod): PodCapture {
    const holderOf = (netns: bigint) =>
      this.#pins.uids().find((uid) => this.#pins.pod(uid).cookie() === netns);
    const cookie = checkPod(pod, holderOf);
    const pins = this.#pins.pod(pod.uid);
    // A pod whose sandbox was made anew: what is left of the old one is of no use.
    if (pins.cookie() !== cookie) this.forget(pod.uid);
    pins.make(cookie);
    const entry = new PodEntry(this.#maps.pods, cookie);
    setStrictEgress(this.#pins, pins, this.#objectDir, pod.addresses, pod.strictEgress);
    this.#probes.setPorts(cookie, pod.addresses, pod.probePorts ?? []);
    this.#write(pod, entry);
    const listeners = installInstance(this.#pins, pins, this.#objectDir, pod.netns);
    this.#captures.get(pod.uid)?.close();
    const dns = { netns: cookie, capture: this.#dns };
    const forget = () => this.forget(pod.uid);
    const capture = new PinnedCapture(pod.uid, entry, listeners, dns, forget);
    this.#captures.set(pod.uid, capture);
    return capture;
  }

  adopted(): readonly string[] {
    return this.#pins.uids();
  }

  #entryOf(uid: string): PodEntry | undefined {
    const cookie = this.#pins.pod(uid).cookie();
    return cookie === undefined ? undefined : new PodEntry(this.#maps.pods, cookie);
  }

  /** Blocked where it is new; as it was where it is not. */
  #write({ uid, addresses }: CapturedPod, entry: PodEntry): void {
    const before = entry.read();
    const isSame = before?.addresses.every((ip) => addresses.includes(ip));
    // What leads to the addresses that it had leads nowhere from now on.
    if (before && !isSame) this.direct.withdraw(uid);
    const kept = entry.read() ?? { id: 0, blocked: true, direct: false, generation: 0n };
    entry.put({ ...kept, addresses });
  }

  forget(uid: string): void {
    const pins = this.#pins.pod(uid);
    const cookie = pins.cookie();
    // Outbound first: in the other order a connection of the pod to itself would be captured and
    // find no listener.
    if (cookie !== undefined) {
      this.direct.withdraw(uid);
      new PodEntry(this.#maps.pods, cookie).remove();
      this.#dns.remove(cookie);
      this.#probes.removePorts(cookie);
    }
    pins.remove();
    this.#captures.get(uid)?.close();
    this.#captures.delete(uid);
  }

  originalDestination(fd: number): OriginalDestination | undefined {
    const bytes = this.#maps.notes.lookup(encodeUint32(fd));
    if (bytes === undefined) return undefined;
    const { kind, address, isElsewhere } = decodeNote(bytes);
    return kind === "captured" && address ? { ...address, isElsewhere } : undefined;
  }

  markAgentSocket(fd: number, showClient?: SocketAddress): void {
    const note = encodeNote({
      kind: "agent",
      address: showClient,
      sourceId: 0,
      isElsewhere: false,
    });
    this.#maps.notes.update(encodeUint32(fd), note);
  }

  counters(): Readonly<Record<Counter, number>> {
    const counts = COUNTERS.map((name, index) => {
      const bytes = this.#maps.counters.lookup(encodeUint32(index));
      return [name, bytes === undefined ? 0 : sumPerCpu(bytes)] as const;
    });
    // Complete: made from the list of all counters.
    return Object.fromEntries(counts) as Record<Counter, number>;
  }

  dnsCounters(): Readonly<Record<DnsCounter, number>> {
    return this.#dns.counters();
  }

  openFlows(): FlowReader {
    const pins = this.#pins;
    installFlows(pins, this.#objectDir, this.#cgroupRoot);
    const paths = { flows: pins.map("flows"), denies: pins.map("denies") };
    return new FlowReader(paths, this.#maps.flow_losses);
  }

  guardCounters(): Readonly<Record<GuardCounter, number>> {
    return { ...this.#probes.counters(), ...strictCounters(this.#pins) };
  }

  refreshProbes(): boolean {
    return this.#probes.refresh();
  }

  close(): void {
    for (const capture of this.#captures.values()) capture.close();
    this.#captures.clear();
    this.#dns.close();
    this.#probes.close();
    for (const map of Object.values(this.#maps)) map.close();
  }

  uninstall(): void {
    for (const uid of this.adopted()) this.forget(uid);
    this.#pins.removeAll();
    this.#probes.uninstall();
    this.close();
  }
}

interface PodDns {
  readonly netns: bigint;
  readonly capture: DnsCapture;
}

class PinnedCapture implements PodCapture {
  readonly uid: string;
  readonly #entry: PodEntry;
  readonly #slots: BpfMap;
  readonly #dns: PodDns;
  readonly #forget: () => void;

  constructor(uid: string, entry: PodEntry, slots: BpfMap, dns: PodDns, forget: () => void) {
    this.uid = uid;
    this.#entry = entry;
    this.#slots = slots;
    this.#dns = dns;
    this.#forget = forget;
  }

  setListeners(listeners: Listeners): void {
    for (const [index, slot] of LISTENER_SLOTS.entries()) {
      const fd = listeners[slot];
      if (fd === undefined) this.#slots.delete(encodeUint32(index));
      else this.#slots.update(encodeUint32(index), encodeUint64(BigInt(fd)));
    }
  }

  setDns(listeners: DnsListeners | undefined): void {
    this.#dns.capture.set(this.#dns.netns, listeners);
  }

  dnsPorts(): readonly number[] | undefined {
    return this.#dns.capture.portsOf(this.#dns.netns);
  }

  dnsServer(slot: number): SocketAddress | undefined {
    return this.#dns.capture.serverOf(this.#dns.netns, slot);
  }

  unblock(): void {
    this.#entry.setBlocked(false);
  }

  block(): void {
    this.#entry.setBlocked(true);
  }

  remove(): void {
    this.#forget();
  }

  close(): void {
    this.#slots.close();
  }
}
