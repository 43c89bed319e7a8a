/**
 * The rung below eBPF: nftables in each pod's network namespace. For hosts whose kernel has no
 * sk_lookup, or whose cgroup2 tree is not ours to attach to.
 *
 * Rules stay when the agent ends: they lead to ports where then nobody listens, so connections are
 * refused. How it differs from eBPF stands in docs/operations.md.
 */
import { MeshError } from "#core/errors.ts";
import { type IpAddress, isIpv4, isLoopback, parseIp, type SocketAddress } from "#core/ip.ts";
import {
  bindTransparent,
  errnoOf,
  type Netns,
  openNetns,
  originalDestination,
  setMark,
} from "#native/kernel/index.ts";
import { checkPod } from "../check-pod.ts";
import type { CapturedPod, Datapath, FixedSockets, ListenerRole, PodCapture } from "../datapath.ts";
import { DNS_COUNTERS } from "../dns-layout.ts";
import { COUNTERS, HBONE_PORT, OUT_PORT } from "../layout.ts";
import { PROBE_COUNTERS, STRICT_COUNTERS } from "../probe-layout.ts";
import { removeAll, writeCapture, writeReplyRoutes } from "./commands.ts";
import { PodRecords } from "./records.ts";
import { AGENT_MARK, IN_PORT } from "./rules.ts";

export interface NftDatapathOptions {
  /** Where it is kept which pods have rules; one agent's own, made where it is missing. */
  readonly recordDir: string;
  /** Of the running kernel. */
  readonly bootId: string;
}

/** @throws MeshError `OBJECT_INVALID` where the records cannot be understood */
export function openNftDatapath({ recordDir, bootId }: NftDatapathOptions): Datapath {
  return new NftDatapath(new PodRecords(recordDir, bootId));
}

const LOOPBACK = { ipv4: parseIp("127.0.0.1"), ipv6: parseIp("::1") } as const;
const ANY = { ipv4: parseIp("0.0.0.0"), ipv6: parseIp("::") } as const;

/** REDIRECT leads what leaves to loopback, and what arrives to an address of the interface. */
const SOCKETS: FixedSockets = {
  listenAt(role: ListenerRole, family) {
    if (role === "outbound") return { ip: LOOPBACK[family], port: OUT_PORT };
    return { ip: ANY[family], port: role === "inbound" ? IN_PORT : HBONE_PORT };
  },
  arrivedAt: (fd) => originalDestination(fd),
};

class NftDatapath implements Datapath {
  readonly rung = "nftables";
  readonly fixedSockets = SOCKETS;
  readonly #records: PodRecords;
  readonly #captures = new Map<string, NftCapture>();

  constructor(records: PodRecords) {
    this.#records = records;
  }

  enrol(pod: CapturedPod): PodCapture {
    const { uid, netns } = pod;
    // Probes are then connections like others, which fails closed; this would fail open.
    if (pod.strictEgress !== undefined) {
      const reason = "strict egress needs eBPF, which this node's agent does without";
      throw new MeshError("REQUEST_REFUSED", `Cannot enrol pod "${uid}": ${reason}`);
    }
    const holderOf = (cookie: bigint) =>
      this.#records.uids().find((each) => this.#records.read(each)?.cookie === cookie);
    const cookie = checkPod(pod, holderOf);
    const before = this.#records.read(uid);
    const isBlocked = before?.cookie === cookie ? before.isBlocked : true;
    this.#records.write(uid, { netnsPath: netns.path, cookie, isBlocked });
    // Routes first: rules without them would take the answers of applications to nowhere.
    writeReplyRoutes(netns, pod.addresses.map(familyOf));
    writeCapture(netns, isBlocked);
    this.#captures.get(uid)?.close();
    const capture = new NftCapture(uid, cookie, netns, this.#records, () => this.forget(uid));
    this.#captures.set(uid, capture);
    return capture;
  }

  adopted(): readonly string[] {
    return this.#records.uids();
  }

  forget(uid: string): void {
    const record = this.#records.read(uid);
    if (record === undefined) return;
    const capture = this.#captures.get(uid);
    const isHeld = capture?.cookie === record.cookie;
    const opened = isHeld ? undefined : openIfSame(record.netnsPath, record.cookie);
    const netns = isHeld ? capture.netns : opened;
    try {
      if (netns) removeAll(netns);
    } finally {
      opened?.close();
    }
    this.#records.remove(uid);
    capture?.close();
    this.#captures.delete(uid);
  }

  originalDestination(fd: number): SocketAddress | undefined {
    const destination = originalDestination(fd);
    // Not redirected: somebody has dialled the listener itself.
    return destination && isLoopback(destination.ip) ? undefined : destination;
  }

  markAgentSocket(fd: number, showClient?: SocketAddress): void {
    setMark(fd, AGENT_MARK);
    if (showClient !== undefined && canBeShown(showClient.ip)) bindTransparent(fd, showClient.ip);
  }

  counters(): ReturnType<Datapath["counters"]> {
    return zeros(COUNTERS);
  }

  dnsCounters(): ReturnType<Datapath["dnsCounters"]> {
    return zeros(DNS_COUNTERS);
  }

  openFlows(): undefined {
    return undefined;
  }

  guardCounters(): ReturnType<Datapath["guardCounters"]> {
    return zeros([...PROBE_COUNTERS, ...STRICT_COUNTERS]);
  }

  refreshProbes(): boolean {
    return false;
  }

  close(): void {
    for (const capture of this.#captures.values()) capture.close();
    this.#captures.clear();
  }

  uninstall(): void {
    for (const uid of this.adopted()) this.forget(uid);
    this.#records.removeAll();
  }
}

class NftCapture implements PodCapture {
  readonly uid: string;
  readonly cookie: bigint;
  /** Our own: the caller's is only ours during a call. */
  readonly netns: Netns;
  readonly #records: PodRecords;
  readonly #remove: () => void;

  constructor(uid: string, cookie: bigint, netns: Netns, records: PodRecords, remove: () => void) {
    this.uid = uid;
    this.cookie = cookie;
    this.netns = openNetns(`/proc/self/fd/${netns.fd}`);
    this.#records = records;
    this.#remove = remove;
  }

  setListeners(): void {
    // The rules name ports: whoever listens there is found, and nobody refuses.
  }

  unblock(): void {
    this.#set(false);
  }

  block(): void {
    this.#set(true);
  }

  setDns(): void {
    // Queries are left alone on this rung.
  }

  dnsPorts(): undefined {
    return undefined;
  }

  dnsServer(): undefined {
    return undefined;
  }

  remove(): void {
    this.#remove();
  }

  close(): void {
    this.netns.close();
  }

  #set(isBlocked: boolean): void {
    const record = this.#records.read(this.uid);
    if (record === undefined) throw new TypeError("pod is not enrolled any more");
    if (record.isBlocked === isBlocked) return;
    // An agent that dies in between leaves a pod that its successor blocks, never the reverse.
    if (isBlocked) this.#records.write(this.uid, { ...record, isBlocked });
    writeCapture(this.netns, isBlocked);
    if (!isBlocked) this.#records.write(this.uid, { ...record, isBlocked });
  }
}

/** A link-local address is of one interface only, and loopback of none that leads to a peer. */
function canBeShown(ip: IpAddress): boolean {
  return !isLoopback(ip) && !/^fe[89ab]/.test(ip);
}

function familyOf(ip: IpAddress): "ipv4" | "ipv6" {
  return isIpv4(ip) ? "ipv4" : "ipv6";
}

/** The network namespace at a path, unless it is gone or another one by now. */
function openIfSame(path: string, cookie: bigint): Netns | undefined {
  let netns: Netns;
  try {
    netns = openNetns(path);
  } catch (error) {
    if (GONE.includes(errnoOf(error))) return undefined;
    throw error;
  }
  if (netns.cookie() === cookie) return netns;
  netns.close();
  return undefined;
}

/** errno.h: no such path, no such process, a file that is no namespace any more. */
const GONE: readonly (number | undefined)[] = [2, 3, 22, 25];

function zeros<Name extends string>(names: readonly Name[]): Readonly<Record<Name, number>> {
  // Complete: made from the list of all names.
  return Object.fromEntries(names.map((name) => [name, 0])) as Record<Name, number>;
}
