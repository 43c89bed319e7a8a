import { addon, naming } from "./addon.ts";

/**
 * Whether a cgroup still has a directory. The number is the one in `LinkInfo`, and its inode.
 *
 * @param path  any directory of the cgroup2 file system
 */
export function cgroupExists(path: string, id: bigint): boolean {
  return naming(`look for cgroup ${id} in "${path}"`, () => addon.cgroupExists(path, id));
}

/**
 * Mounts a BPF file system at `path` where there is none.
 *
 * @returns whether it had to be mounted
 */
export function ensureBpffs(path: string): boolean {
  return naming(`mount a BPF file system at "${path}"`, () => addon.ensureBpffs(path));
}
