/** Follows files and folders by looking: editors save in too many ways for notifications. */
import { readdir, readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import type { FileText } from "./object/store.ts";

const INTERVAL_MS = 250;
/** A folder with more is somebody's home or the root, given by mistake. */
const FILES_MAX = 2_000;
const ENDINGS = [".yaml", ".yml"];
/** Not the user's objects, whatever is in there. */
const SKIPPED = new Set(["node_modules"]);

/** @throws Error where a path is not there, or holds too much */
export async function readPaths(paths: readonly string[]): Promise<readonly FileText[]> {
  const files = await findFiles(paths);
  return Promise.all(files.map(async (path) => ({ path, text: await readFile(path, "utf8") })));
}

/**
 * Calls `take` after each change, until `signal` is aborted. What cannot be read goes to
 * `complain`, once, and is tried again.
 */
export async function followPaths(
  paths: readonly string[],
  take: (files: readonly FileText[]) => void,
  complain: (error: unknown) => void,
  signal: AbortSignal,
): Promise<void> {
  let seen = await stampOf(paths).catch(() => "");
  let complaint = "";
  for (;;) {
    await delay(INTERVAL_MS, undefined, { signal }).catch(() => undefined);
    if (signal.aborted) return;
    try {
      const stamp = await stampOf(paths);
      if (stamp === seen) continue;
      take(await readPaths(paths));
      seen = stamp;
      complaint = "";
    } catch (error) {
      if (String(error) !== complaint) complain(error);
      complaint = String(error);
    }
  }
}

/** Changes with every edit: a file that is replaced has another inode even in the same instant. */
async function stampOf(paths: readonly string[]): Promise<string> {
  const files = await findFiles(paths);
  const stamps = await Promise.all(
    files.map(async (path) => {
      const { mtimeNs, size, ino } = await stat(path, { bigint: true });
      return `${path}:${mtimeNs}:${size}:${ino}`;
    }),
  );
  return stamps.join("\n");
}

/** Files as they are named, and those of folders that end as YAML does, in order. */
async function findFiles(paths: readonly string[]): Promise<readonly string[]> {
  const files: string[] = [];
  const visit = async (folder: string) => {
    const entries = await readdir(folder, { withFileTypes: true });
    for (const entry of entries.toSorted((a, b) => (a.name < b.name ? -1 : 1))) {
      const path = join(folder, entry.name);
      if (entry.name.startsWith(".") || SKIPPED.has(entry.name)) continue;
      if (entry.isDirectory()) await visit(path);
      else if (ENDINGS.some((ending) => entry.name.endsWith(ending))) files.push(path);
      if (files.length > FILES_MAX) {
        throw new RangeError(`Cannot read "${folder}": more than ${FILES_MAX} files`);
      }
    }
  };
  for (const path of paths) {
    if ((await stat(path)).isDirectory()) await visit(path);
    else files.push(path);
  }
  return files;
}
