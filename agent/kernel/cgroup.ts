import { readFileSync, statfsSync } from "node:fs";
import { join, relative } from "node:path";
import { MeshError } from "#core/errors.ts";

/** linux/magic.h */
export const CGROUP2_SUPER_MAGIC = 0x63677270;

/**
 * Refuses a `cgroupRoot` that the agent itself is not in.
 *
 * The kernel picks the hooks of a socket by the cgroup it was made in. An agent outside would find
 * no note on any socket it accepts, and would refuse every captured connection.
 *
 * @throws MeshError `SETTINGS_INVALID`
 */
export function checkCgroupRoot(cgroupRoot: string): void {
  const refuse = (reason: string, cause?: unknown) => {
    const message = `Cannot attach to cgroup "${cgroupRoot}": ${reason}`;
    return new MeshError("SETTINGS_INVALID", message, cause === undefined ? undefined : { cause });
  };
  let type: number;
  try {
    type = statfsSync(cgroupRoot).type;
  } catch (error) {
    throw refuse("it is not there", error);
  }
  if (type !== CGROUP2_SUPER_MAGIC) throw refuse("it is not in a cgroup2 file system");
  const mount = mountOf(cgroupRoot, readFileSync("/proc/self/mountinfo", "utf8"));
  const own = ownCgroup(readFileSync("/proc/self/cgroup", "utf8"));
  // At the root nobody can be outside, whatever a cgroup namespace makes of the names.
  if (mount === undefined || mount.point === cgroupRoot) return;
  const ownPath = own && join(mount.point, relative(mount.root, own));
  if (ownPath !== cgroupRoot && !ownPath?.startsWith(`${cgroupRoot}/`)) {
    throw refuse(`this process is outside, in "${ownPath}"`);
  }
}

export interface CgroupMount {
  /** The cgroup that is mounted. */
  readonly root: string;
  /** Where. */
  readonly point: string;
}

/** The cgroup2 mount that `path` lies in. @see proc_pid_mountinfo(5) */
export function mountOf(path: string, mountinfo: string): CgroupMount | undefined {
  const mounts = mountinfo.split("\n").flatMap((line) => {
    const [mount = "", type = ""] = line.split(" - ");
    const [, , , root, point] = mount.split(" ");
    const isCgroup2 = type.startsWith("cgroup2 ") && root !== undefined && point !== undefined;
    return isCgroup2 ? [{ root, point }] : [];
  });
  return mounts.findLast(({ point }) => path === point || path.startsWith(`${point}/`));
}

/** A process's place in cgroup2. @see cgroups(7), "/proc/pid/cgroup" */
export function ownCgroup(procCgroup: string): string | undefined {
  const line = procCgroup.split("\n").find((text) => text.startsWith("0::"));
  return line?.slice("0::".length);
}

/** @throws MeshError `KERNEL_UNSUPPORTED` where cgroup2 is not mounted */
export function cgroup2Mount(): string {
  const mounts = readFileSync("/proc/mounts", "utf8").split("\n");
  const mount = mounts.map((line) => line.split(" ")).find(([, , type]) => type === "cgroup2");
  if (mount?.[1] === undefined) {
    throw new MeshError("KERNEL_UNSUPPORTED", "Cannot find cgroup2: it is not mounted");
  }
  return mount[1];
}
