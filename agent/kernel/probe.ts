/**
 * Finds out what this host can do, by doing it: objects are loaded, rules are written into a
 * network namespace of their own. A kernel's version says nothing about what was left out or
 * brought back, and has lied before.
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, readdirSync, rmdirSync } from "node:fs";
import { join } from "node:path";
import { MeshError, reasonOf } from "#core/errors.ts";
import { parseIp } from "#core/ip.ts";
import {
  BpfObject,
  bindTransparent,
  closeDescriptor,
  type Netns,
  type ObjectCosts,
  openNetns,
  setMark,
} from "#native/kernel/index.ts";
import type { Rung } from "./datapath.ts";
import { runProgram } from "./nft/commands.ts";
import { AGENT_MARK, captureRules, replyRoute, replyRule } from "./nft/rules.ts";

export interface Feature {
  readonly rung: Rung;
  readonly name: string;
  /** What it is good for. */
  readonly purpose: string;
  /** Whether the rung does not work without it. */
  readonly isNeeded: boolean;
  /** Why it is not there; undefined where it is. */
  readonly missing: string | undefined;
}

export interface LoadedObject extends ObjectCosts {
  readonly object: string;
  /** Reading, verifying, compiling. */
  readonly loadMs: number;
  readonly attachMs: Readonly<Record<string, number>>;
}

export interface EbpfProbe {
  readonly objectDir: string;
  /** @throws MeshError where there is none */
  readonly cgroupRoot: () => string;
}

type Hook = "cgroup" | "netns";

/** The objects that capture cannot do without. */
const NEEDED: Readonly<
  Record<string, { readonly purpose: string; readonly programs: Readonly<Record<string, Hook>> }>
> = {
  "connect.bpf.o": {
    purpose: "capture of what leaves a pod (cgroup/connect, socket storage)",
    programs: { out_connect4: "cgroup", out_connect6: "cgroup" },
  },
  "sockops.bpf.o": {
    purpose: "hand-over between two ends of a connection (sock_ops, netns cookie)",
    programs: { mesh_sockops: "cgroup" },
  },
  "peer.bpf.o": {
    purpose: "the client's own address (cgroup/getpeername)",
    programs: { peer_name4: "cgroup", peer_name6: "cgroup" },
  },
  "inbound.bpf.o": {
    purpose: "capture of what arrives at a pod (sk_lookup)",
    programs: { in_lookup: "netns" },
  },
  "dns.bpf.o": { purpose: "capture of DNS queries", programs: {} },
};

/** Made for a test of the build, never loaded. */
const NOT_LOADED = "layout_check.bpf.o";

/** @returns why capture with eBPF is not possible here, or undefined where it is */
export function missingForEbpf({ objectDir, cgroupRoot }: EbpfProbe): string | undefined {
  const root = missingWhen(cgroupRoot);
  if (root !== undefined) return root;
  for (const file of Object.keys(NEEDED)) {
    const missing = missingWhen(() => load(objectDir, file).close());
    if (missing !== undefined) return missing;
  }
  return undefined;
}

/** @returns why capture with nftables is not possible here, or undefined where it is */
export function missingForNft(): string | undefined {
  return nftFeatures().find(({ missing }) => missing !== undefined)?.missing;
}

/** Everything about both rungs. What it makes on the way is gone afterwards. */
export async function probeAll(options: EbpfProbe): Promise<{
  readonly features: readonly Feature[];
  readonly objects: readonly LoadedObject[];
}> {
  const features: Feature[] = [];
  const objects: LoadedObject[] = [];
  const add = (name: string, purpose: string | undefined, probe: () => void) => {
    features.push({
      rung: "ebpf",
      name,
      purpose: purpose ?? "more than capture",
      isNeeded: purpose !== undefined,
      missing: missingWhen(probe),
    });
  };
  add("cgroup2", "a place for hooks", options.cgroupRoot);
  const places = await makePlaces(options.cgroupRoot);
  try {
    for (const file of objectFiles(options.objectDir)) {
      add(file, NEEDED[file]?.purpose, () => {
        objects.push(measure(options.objectDir, file, places));
      });
    }
  } finally {
    places.remove();
  }
  return { features: [...features, ...nftFeatures()], objects };
}

function objectFiles(objectDir: string): readonly string[] {
  const built = readdirSync(objectDir).filter((name) => name.endsWith(".bpf.o"));
  const all = new Set([...Object.keys(NEEDED), ...built]);
  all.delete(NOT_LOADED);
  return [...all];
}

function load(objectDir: string, file: string): BpfObject {
  const object = new BpfObject(join(objectDir, file));
  try {
    object.load();
    return object;
  } catch (error) {
    object.close();
    throw error;
  }
}

function measure(objectDir: string, file: string, places: Places): LoadedObject {
  const startMs = performance.now();
  const object = load(objectDir, file);
  try {
    const loadMs = performance.now() - startMs;
    const attachMs: Record<string, number> = {};
    for (const [program, hook] of Object.entries(NEEDED[file]?.programs ?? {})) {
      const sinceMs = performance.now();
      const link =
        hook === "netns"
          ? object.attachNetns(program, places.netns)
          : object.attachCgroup(program, places.cgroup);
      attachMs[program] = performance.now() - sinceMs;
      link.detach();
      link.close();
    }
    return { object: file, loadMs, attachMs, ...object.costs() };
  } finally {
    object.close();
  }
}

interface Places {
  /** Without a process in it. */
  readonly cgroup: string;
  readonly netns: Netns;
  remove(): void;
}

/** A cgroup and a network namespace that nobody else uses. */
async function makePlaces(cgroupRoot: () => string): Promise<Places> {
  const netns = await makeNetns();
  try {
    const cgroup = makeCgroup(cgroupRoot);
    const remove = () => {
      netns.remove();
      if (cgroup !== undefined) rmdirSync(cgroup);
    };
    return { cgroup: cgroup ?? "", netns: netns.netns, remove };
  } catch (error) {
    netns.remove();
    throw error;
  }
}

/** @returns undefined where there is no place for one */
function makeCgroup(cgroupRoot: () => string): string | undefined {
  if (missingWhen(cgroupRoot) !== undefined) return undefined;
  const path = join(cgroupRoot(), `aquifer-probe-${process.pid}`);
  try {
    mkdirSync(path);
    return path;
  } catch (error) {
    throw new MeshError("SETTINGS_INVALID", `Cannot probe in cgroup "${path}"`, { cause: error });
  }
}

async function makeNetns(): Promise<{ readonly netns: Netns; remove(): void }> {
  const child = spawn("unshare", ["--net", "--", "sh", "-c", "echo; read end"], {
    stdio: ["pipe", "pipe", "ignore"],
  });
  const cannot = "Cannot make a network namespace to probe in";
  try {
    await Promise.race([once(child.stdout, "data"), once(child, "exit")]);
  } catch (error) {
    throw new MeshError("KERNEL_CALL_FAILED", cannot, { cause: error });
  }
  if (child.pid === undefined || child.exitCode !== null) {
    throw new MeshError("KERNEL_CALL_FAILED", cannot);
  }
  const netns = openNetns(child.pid);
  const remove = () => {
    child.stdin.end();
    netns.close();
  };
  return { netns, remove };
}

function nftFeatures(): readonly Feature[] {
  const within = (program: string, args: readonly string[], input = "") => {
    return runProgram("unshare", ["--net", "--", program, ...args], input);
  };
  const feature = (name: string, purpose: string, missing: string | undefined): Feature => ({
    rung: "nftables",
    ...{ name, purpose, isNeeded: true },
    missing: missing && `${name}: ${missing}`,
  });
  const ipScript = ["ip link set lo up", ...routeCommands()].join(" && ");
  return [
    feature("nsenter", "rules in another namespace", runProgram("nsenter", ["--version"], "")),
    feature("nft", "REDIRECT, zones, gates", within("nft", ["-f", "-"], captureRules(false))),
    feature("ip rule", "the way back to the agent", within("sh", ["-c", ipScript])),
    feature(
      "IP_TRANSPARENT",
      "the client's own address",
      missingWhen(() => speakForOther()),
    ),
  ];
}

function routeCommands(): readonly string[] {
  const commands = [replyRoute("ipv4"), replyRule("ipv4", "add")];
  return commands.map((args) => ["ip", ...args].join(" "));
}

/** RFC 5737: nobody's. */
const SOMEBODY = parseIp("198.51.100.1");

function speakForOther(): void {
  const netns = openNetns(process.pid);
  const fd = netns.openSocket({ family: "ipv4" });
  try {
    setMark(fd, AGENT_MARK);
    bindTransparent(fd, SOMEBODY);
  } finally {
    closeDescriptor(fd);
    netns.close();
  }
}

/** Settings that are wrong are not a lack of the kernel's. */
function missingWhen(probe: () => unknown): string | undefined {
  try {
    probe();
    return undefined;
  } catch (error) {
    const isLack = error instanceof MeshError && error.code.startsWith("KERNEL_");
    if (!isLack) throw error;
    return reasonOf(error).trim().split("\n").slice(0, 20).join("\n");
  }
}
