/** Groups of processes: nothing that is started in one can leave it, so all of it can be ended. */
import { mkdir, readdir, readFile, rmdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { MeshError } from "#core/errors.ts";

/** A process that is killed is gone within this, unless it hangs in the kernel. */
const GONE_LIMIT_MS = 5_000;
const POLL_MS = 5;

/** @throws MeshError `KERNEL_UNSUPPORTED` where cgroup2 is not mounted */
export async function findCgroupMount(): Promise<string> {
  const mounts = await readFile("/proc/self/mounts", "utf8");
  for (const line of mounts.split("\n")) {
    const [, path, type] = line.split(" ");
    if (type === "cgroup2" && path !== undefined) return path;
  }
  const hint = 'mount it: "mount -t cgroup2 none /sys/fs/cgroup"';
  throw new MeshError("KERNEL_UNSUPPORTED", `Cannot find cgroup2: ${hint}`);
}

export async function createCgroup(path: string): Promise<void> {
  await mkdir(path, { recursive: true });
}

/** Kills every process in it and below (cgroup.kill, Linux 5.14). No harm where it is gone. */
export async function killCgroup(path: string): Promise<void> {
  await unlessGone(() => writeFile(join(path, "cgroup.kill"), "1"));
}

/**
 * Kills what is left in it and below, and removes it.
 *
 * @throws MeshError `TIMED_OUT` where a process does not die
 */
export async function removeCgroup(path: string): Promise<void> {
  await killCgroup(path);
  const deadlineMs = Date.now() + GONE_LIMIT_MS;
  while (await isPopulated(path)) {
    if (Date.now() > deadlineMs) {
      throw new MeshError("TIMED_OUT", `Cannot remove cgroup "${path}": a process does not die`);
    }
    await delay(POLL_MS);
  }
  await removeTree(path, deadlineMs);
}

async function isPopulated(path: string): Promise<boolean> {
  const events = await unlessGone(() => readFile(join(path, "cgroup.events"), "utf8"));
  return events?.includes("populated 1") ?? false;
}

async function removeTree(path: string, deadlineMs: number): Promise<void> {
  const entries = (await unlessGone(() => readdir(path, { withFileTypes: true }))) ?? [];
  for (const entry of entries) {
    if (entry.isDirectory()) await removeTree(join(path, entry.name), deadlineMs);
  }
  for (;;) {
    try {
      await unlessGone(() => rmdir(path));
      return;
    } catch (error) {
      // The last process may still be on its way out.
      if (codeOf(error) !== "EBUSY" || Date.now() > deadlineMs) throw error;
      await delay(POLL_MS);
    }
  }
}

/** Of the group and all below it. */
export async function processesIn(path: string): Promise<readonly number[]> {
  const text = (await unlessGone(() => readFile(join(path, "cgroup.procs"), "utf8"))) ?? "";
  const entries = (await unlessGone(() => readdir(path, { withFileTypes: true }))) ?? [];
  const below = entries.filter((entry) => entry.isDirectory());
  const nested = await Promise.all(below.map(({ name }) => processesIn(join(path, name))));
  return [...text.split("\n").filter(Boolean).map(Number), ...nested.flat()];
}

async function unlessGone<Result>(call: () => Promise<Result>): Promise<Result | undefined> {
  try {
    return await call();
  } catch (error) {
    // ENODEV: the kernel's word for a cgroup that is removed while a file of it is open.
    if (codeOf(error) === "ENOENT" || codeOf(error) === "ENODEV") return undefined;
    throw error;
  }
}

function codeOf(error: unknown): unknown {
  return error instanceof Error && "code" in error ? error.code : undefined;
}
