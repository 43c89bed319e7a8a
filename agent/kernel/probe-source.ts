/**
 * Health probes from the node: which cgroup they come from, and which ports of which pods expect
 * them (docs/decisions/0012-probes.md).
 */
import { execFileSync } from "node:child_process";
import { existsSync, statSync, unlinkSync } from "node:fs";
import { join } from "node:path";
import { MeshError } from "#core/errors.ts";
import type { IpAddress } from "#core/ip.ts";
import { BpfLink, type BpfMap, BpfObject, openNetns } from "#native/kernel/index.ts";
import { encodeAddr } from "./dns-layout.ts";
import { encodeUint32, encodeUint64, sumPerCpu } from "./layout.ts";
import type { Pins } from "./pins.ts";
import { PROBE_COUNTERS, PROBE_SOURCES } from "./probe-layout.ts";
import { install } from "./programs.ts";

export interface ProbeOptions {
  /** Of whoever probes this node's pods, a directory in cgroup2; it may come and go. */
  readonly cgroup: string;
  /** Path of the network namespace that probes come from: the agent's own unless set. */
  readonly netnsPath?: string;
}

const OWN_NETNS = "/proc/self/ns/net";
const PROGRAMS = ["probe_connect4", "probe_connect6"] as const;
/** `ip` has to wait for a lock of the kernel at most. */
const IP_LIMIT_MS = 10_000;

export class ProbeSource {
  readonly #pins: Pins;
  readonly #objectDir: string;
  readonly #options: ProbeOptions | undefined;
  readonly #ports: BpfMap;
  readonly #counters: BpfMap;

  /** Makes the maps, or takes over those that are pinned. Nothing is attached before `start()`. */
  constructor(pins: Pins, objectDir: string, options: ProbeOptions | undefined) {
    this.#pins = pins;
    this.#objectDir = objectDir;
    this.#options = options;
    const object = openProbeObject(pins, objectDir);
    try {
      object.load();
      this.#ports = object.openMap("probe_ports");
      this.#counters = object.openMap("probe_counters");
    } finally {
      object.close();
    }
  }

  /**
   * Attaches to the prober's cgroup where that is not done. A service manager makes the cgroup anew
   * with each start of the prober, and the kernel forgets what was attached to the old one.
   *
   * @returns whether probes are marked now
   * @throws MeshError `KERNEL_CALL_FAILED`
   */
  refresh(): boolean {
    if (this.#options === undefined) {
      this.#detach();
      return false;
    }
    const cgroupId = cgroupIdOf(this.#options.cgroup);
    if (cgroupId === undefined) return false;
    if (PROGRAMS.every((program) => this.#attachedTo(program) === cgroupId)) return true;
    this.#attach(this.#options, cgroupId);
    return true;
  }

  /** Puts newly compiled programs and the addresses in force, where the cgroup is there. */
  start(): void {
    const cgroupId = this.#options === undefined ? undefined : cgroupIdOf(this.#options.cgroup);
    if (this.#options === undefined || cgroupId === undefined) this.refresh();
    else this.#attach(this.#options, cgroupId);
  }

  /** These ports of these addresses, and no others of the pod. */
  setPorts(netns: bigint, addresses: readonly IpAddress[], ports: readonly number[]): void {
    const wanted = addresses.flatMap((ip) => ports.map((port) => encodeAddr({ ip, port })));
    const hexes = new Set(wanted.map((key) => Buffer.from(key).toString("hex")));
    this.#removeWhere(netns, (key) => !hexes.has(Buffer.from(key).toString("hex")));
    for (const key of wanted) this.#ports.update(key, encodeUint64(netns));
  }

  removePorts(netns: bigint): void {
    this.#removeWhere(netns, () => true);
  }

  counters(): Readonly<Record<(typeof PROBE_COUNTERS)[number], number>> {
    return readCounters(this.#counters, PROBE_COUNTERS);
  }

  close(): void {
    this.#ports.close();
    this.#counters.close();
  }

  /** Takes the addresses off the node; the pins are the caller's to remove. */
  uninstall(): void {
    if (this.#options !== undefined) removeAddresses(this.#options.netnsPath);
  }

  #attach(options: ProbeOptions, cgroupId: bigint): void {
    addAddresses(options.netnsPath);
    const object = openProbeObject(this.#pins, this.#objectDir);
    try {
      object.setConstant("node_netns", encodeUint64(cookieOf(options.netnsPath ?? OWN_NETNS)));
      object.load();
      for (const program of PROGRAMS) {
        install(this.#pins.link(program), (link) => link.info().cgroupId === cgroupId, {
          update: (link) => object.replaceProgram(link, program),
          attach: () => object.attachCgroup(program, options.cgroup),
        });
      }
    } finally {
      object.close();
    }
  }

  #attachedTo(program: string): bigint | undefined {
    const path = this.#pins.link(program);
    if (!existsSync(path)) return undefined;
    const link = BpfLink.openPinned(path);
    try {
      return link.info().cgroupId ?? undefined;
    } finally {
      link.close();
    }
  }

  /** What an agent that had the setting has left. */
  #detach(): void {
    const paths = PROGRAMS.map((program) => this.#pins.link(program)).filter(existsSync);
    for (const path of paths) unlinkSync(path);
    if (paths.length > 0) removeAddresses(undefined);
  }

  #removeWhere(netns: bigint, isStale: (key: Uint8Array) => boolean): void {
    for (const key of this.#ports.keys()) {
      const holder = this.#ports.lookup(key);
      if (holder === undefined || !isStale(key)) continue;
      const cookie = new DataView(holder.buffer, holder.byteOffset).getBigUint64(0, true);
      if (cookie === netns) this.#ports.delete(key);
    }
  }
}

/** A per-CPU array, one entry for each of `names`. */
export function readCounters<Name extends string>(
  map: BpfMap,
  names: readonly Name[],
): Readonly<Record<Name, number>> {
  const counts = names.map((name, index) => {
    const bytes = map.lookup(encodeUint32(index));
    return [name, bytes === undefined ? 0 : sumPerCpu(bytes)] as const;
  });
  // Complete: made from the list of all names.
  return Object.fromEntries(counts) as Record<Name, number>;
}

/** Undefined where there is no such cgroup, as between two starts of a prober. */
function cgroupIdOf(cgroup: string): bigint | undefined {
  return existsSync(cgroup) ? statSync(cgroup, { bigint: true }).ino : undefined;
}

function openProbeObject(pins: Pins, objectDir: string): BpfObject {
  const object = new BpfObject(join(objectDir, "probe.bpf.o"));
  for (const map of PROBE_MAPS) object.setPinPath(map, pins.map(map));
  return object;
}

const PROBE_MAPS = ["probe_ports", "probe_counters"] as const;

function cookieOf(path: string): bigint {
  const netns = openNetns(path);
  try {
    return netns.cookie();
  } finally {
    netns.close();
  }
}

/**
 * On lo, because packets to them must end on the node. Never chosen for other connections: of a
 * scope that ends at the host, and past its preferred lifetime.
 */
function addAddresses(netnsPath: string | undefined): void {
  ip(netnsPath, ["address", "replace", `${PROBE_SOURCES.ipv4}/32`, "dev", "lo", "scope", "host"]);
  const ipv6 = [`${PROBE_SOURCES.ipv6}/128`, "dev", "lo", "nodad", "preferred_lft", "0"];
  if (hasIpv6()) ip(netnsPath, ["-6", "address", "replace", ...ipv6]);
}

function removeAddresses(netnsPath: string | undefined): void {
  for (const [address, length] of [
    [PROBE_SOURCES.ipv4, 32],
    [PROBE_SOURCES.ipv6, 128],
  ] as const) {
    const shown = ip(netnsPath, ["address", "show", "dev", "lo", "to", `${address}/${length}`]);
    if (shown !== "") ip(netnsPath, ["address", "delete", `${address}/${length}`, "dev", "lo"]);
  }
}

function hasIpv6(): boolean {
  return existsSync("/proc/sys/net/ipv6/conf/lo");
}

function ip(netnsPath: string | undefined, args: readonly string[]): string {
  const enter = netnsPath === undefined ? [] : ["nsenter", `--net=${netnsPath}`];
  const [file = "ip", ...rest] = [...enter, "ip", ...args];
  try {
    return execFileSync(file, rest, { encoding: "utf8", stdio: "pipe", timeout: IP_LIMIT_MS });
  } catch (cause) {
    const message = `Cannot change the addresses of lo: ${args.join(" ")}`;
    throw new MeshError("KERNEL_CALL_FAILED", message, { cause });
  }
}
