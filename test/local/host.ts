/** What a runtime may leave behind on a host, as the host itself tells. */
import { execFileSync } from "node:child_process";
import { existsSync, readdirSync, readFileSync, readlinkSync } from "node:fs";
import { join } from "node:path";

export interface Traces {
  readonly netns: readonly string[];
  readonly cgroups: readonly string[];
  readonly pins: readonly string[];
  readonly processes: readonly string[];
  readonly files: readonly string[];
}

export const NO_TRACES: Traces = { netns: [], cgroups: [], pins: [], processes: [], files: [] };

/** Everything on this host with the runtime's name in it. */
export function tracesOf(runtime: string): Traces {
  const isOwn = (name: string) => name.includes(runtime);
  return {
    netns: namesIn("/run/netns").filter(isOwn),
    cgroups: namesIn(cgroupMount()).filter(isOwn),
    pins: namesIn("/sys/fs/bpf/aquifer/v1").filter(isOwn),
    processes: processesOf(runtime),
    files: namesIn("/run/aquifer/local").filter(isOwn),
  };
}

/**
 * By their cgroup: a process that was started in a pod cannot have left it. A zombie is none: it
 * waits for its parent, which after a kill -9 is whatever process 1 of this host may be.
 */
function processesOf(runtime: string): readonly string[] {
  return namesIn("/proc").filter((pid) => {
    if (!/^\d+$/.test(pid)) return false;
    try {
      const isOwn = readFileSync(`/proc/${pid}/cgroup`, "utf8").includes(`/aquifer-${runtime}/`);
      return isOwn && !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, "utf8"));
    } catch {
      return false; // it has just ended
    }
  });
}

export function cgroupMount(): string {
  const line = readFileSync("/proc/self/mounts", "utf8")
    .split("\n")
    .find((mount) => mount.split(" ")[2] === "cgroup2");
  return line?.split(" ")[1] ?? "";
}

export function netnsOf(pid: number): string {
  return readlinkSync(`/proc/${pid}/ns/net`);
}

/** Network links of the host's own namespace. */
export function hostLinks(): string {
  return execFileSync("ip", ["-brief", "link"], { encoding: "utf8" })
    .split("\n")
    .map((line) => line.split(/\s+/)[0])
    .join(" ");
}

function namesIn(dir: string): readonly string[] {
  return existsSync(dir) ? readdirSync(dir).map((name) => join(name)) : [];
}
