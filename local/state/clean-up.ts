/** Removes what a runtime has left behind: its own at the end, or that of one that was killed. */
import { readdir, rm, rmdir, unlink } from "node:fs/promises";
import { dirname, join } from "node:path";
import { MeshError, reasonOf } from "#core/errors.ts";
import type { Names } from "../names.ts";
import { deleteNetns, listNetns } from "../network/ip.ts";
import { killCgroup, removeCgroup } from "./cgroup.ts";
import { NOTHING, type Remains, readLedger } from "./ledger.ts";

/**
 * What there is of a runtime: by its ledger, and by the names that only it gives. The names find
 * what is left where the ledger itself was lost, with a /run that was emptied for example.
 */
export async function findRemains(names: Names): Promise<Remains> {
  const ledger = await readLedger(names.ledger).catch(() => NOTHING);
  const netns = (await listNetns()).filter((name) => names.isOwnNetns(name));
  const pins = (await foldersIn(names.pinRoot)).filter((name) => names.isOwnPinDir(name));
  const cgroupParent = join(names.cgroup, "..");
  const cgroups = (await foldersIn(cgroupParent)).map((name) => join(cgroupParent, name));
  return {
    netns: unite(ledger.netns, netns),
    cgroups: unite(
      ledger.cgroups,
      cgroups.filter((path) => path === names.cgroup),
    ),
    pinDirs: unite(
      ledger.pinDirs,
      pins.map((name) => join(names.pinRoot, name)),
    ),
  };
}

/**
 * Processes first, since they hold everything else; pins before cgroups and namespaces, since they
 * are attached to them.
 *
 * @throws MeshError `COMMAND_FAILED`, which lists everything that could not be removed
 */
export async function removeRemains(remains: Remains): Promise<void> {
  const failures: string[] = [];
  const attempt = async (what: string, work: () => Promise<void>) => {
    try {
      await work();
    } catch (error) {
      failures.push(`${what}: ${reasonOf(error)}`);
    }
  };
  for (const path of remains.cgroups) await attempt(path, () => killCgroup(path));
  for (const path of remains.pinDirs) await attempt(path, () => removePins(path));
  for (const path of remains.pinDirs) await removeEmptyParents(path);
  for (const path of remains.cgroups) await attempt(path, () => removeCgroup(path));
  await attempt("network namespaces", () => deleteNetns(remains.netns));
  if (failures.length > 0) {
    const list = failures.join("\n  ");
    throw new MeshError("COMMAND_FAILED", `Cannot remove everything:\n  ${list}`);
  }
}

/** `aquifer/v1` goes with the last of its folders. What others have in there keeps it. */
async function removeEmptyParents(path: string): Promise<void> {
  for (const parent of [dirname(path), dirname(dirname(path))]) {
    if (!/\/aquifer(\/v\d+)?$/.test(parent)) return;
    const isGone = await rmdir(parent).then(
      () => true,
      () => false, // not empty, or gone already
    );
    if (!isGone) return;
  }
}

export async function removeStateDir(names: Names): Promise<void> {
  await rm(names.stateDir, { recursive: true, force: true });
}

/** bpffs knows no recursive removal of its own, and fs.rm() opens what cannot be opened there. */
export async function removePins(path: string): Promise<void> {
  const entries = await entriesIn(path);
  if (entries === undefined) return;
  for (const entry of entries) {
    const child = join(path, entry.name);
    await (entry.isDirectory() ? removePins(child) : unlink(child));
  }
  await rmdir(path);
}

async function foldersIn(path: string): Promise<readonly string[]> {
  const entries = (await entriesIn(path)) ?? [];
  return entries.filter((entry) => entry.isDirectory()).map(({ name }) => name);
}

async function entriesIn(path: string) {
  try {
    return await readdir(path, { withFileTypes: true });
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "ENOENT") return undefined;
    throw error;
  }
}

function unite(a: readonly string[], b: readonly string[]): readonly string[] {
  return [...new Set([...a, ...b])];
}
