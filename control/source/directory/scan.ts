/** One look at the folders: which files there are, and which folders have to be watched. */
import type { Stats } from "node:fs";
import { readdir, realpath, stat } from "node:fs/promises";
import path from "node:path";

/** Changes whenever the file may have changed: its inode, size and both of its times. */
export type Stamp = string;

export interface SeenFile {
  readonly stamp: Stamp;
  /** The later of its times; milliseconds since the epoch. */
  readonly changedAtMs: number;
}

export interface Scan {
  /** Every object file, by its path below a root as it was given, in order. */
  readonly files: ReadonlyMap<string, SeenFile>;
  /** Every folder to watch, with a mark of which folder is behind the path. */
  readonly folders: ReadonlyMap<string, string>;
  /** What could not be looked into: nothing is known about what is below. */
  readonly unreadable: readonly Unreadable[];
}

export interface Unreadable {
  readonly path: string;
  readonly reason: string;
}

/** Far beyond any sensible tree, and few enough that one look stays below a second. */
export const FILES_MAX = 20_000;
const FOLDER_DEPTH_MAX = 16;

/**
 * Looks through `roots` and all folders in them. Symbolic links are followed, a folder that holds
 * itself is entered once. Names that start with a dot are left out: editors and mounted volumes
 * keep their temporary files there.
 */
export async function scan(roots: readonly string[]): Promise<Scan> {
  const walk: Walk = { files: new Map(), folders: new Map(), unreadable: [] };
  for (const root of roots) await enter(root, 0, [], walk);
  for (const { path: missing } of walk.unreadable) await watchAncestor(missing, walk.folders);
  return { ...walk, files: new Map([...walk.files].sort(([a], [b]) => (a < b ? -1 : 1))) };
}

interface Walk {
  readonly files: Map<string, SeenFile>;
  readonly folders: Map<string, string>;
  readonly unreadable: Unreadable[];
}

/** @param above  marks of the folders that this one is in */
async function enter(
  folder: string,
  depth: number,
  above: readonly string[],
  walk: Walk,
): Promise<void> {
  const unreadable = (reason: string) => walk.unreadable.push({ path: folder, reason });
  if (depth > FOLDER_DEPTH_MAX) {
    unreadable(`folders are nested deeper than ${FOLDER_DEPTH_MAX} levels`);
    return;
  }
  const stats = await look(folder);
  if (typeof stats === "string") {
    unreadable(stats);
    return;
  }
  if (!stats.isDirectory()) {
    unreadable("it is not a folder");
    return;
  }
  const mark = markOf(stats);
  if (above.includes(mark)) return;
  walk.folders.set(folder, mark);
  const entries = await readdir(folder, { withFileTypes: true }).catch((error: unknown) =>
    describe(error),
  );
  if (typeof entries === "string") {
    unreadable(entries);
    return;
  }
  for (const entry of entries) {
    const target = path.join(folder, entry.name);
    if (entry.name.startsWith(".")) continue;
    await visit(target, depth, [...above, mark], walk);
    if (entry.isSymbolicLink() && walk.files.has(target)) await watchTarget(target, walk.folders);
  }
}

async function visit(
  entry: string,
  depth: number,
  above: readonly string[],
  walk: Walk,
): Promise<void> {
  const stats = await look(entry);
  // Gone since its folder was read, or a link to nowhere: there is no such file.
  if (stats === MISSING) return;
  if (typeof stats === "string") {
    if (isObjectFile(entry)) walk.unreadable.push({ path: entry, reason: stats });
    return;
  }
  if (stats.isDirectory()) await enter(entry, depth + 1, above, walk);
  if (!stats.isFile() || !isObjectFile(entry)) return;
  const seen = { stamp: stampOf(stats), changedAtMs: Math.max(stats.mtimeMs, stats.ctimeMs) };
  if (walk.files.size < FILES_MAX) walk.files.set(entry, seen);
  else walk.unreadable.push({ path: entry, reason: `there are more than ${FILES_MAX} files` });
}

/** What is written to the file behind a link happens in another folder than the link's. */
async function watchTarget(link: string, folders: Map<string, string>): Promise<void> {
  const target = await realpath(link).catch((error: unknown) => describe(error));
  const folder = path.dirname(target);
  const stats = await look(folder);
  if (typeof stats !== "string" && !folders.has(folder)) folders.set(folder, markOf(stats));
}

/** Something has to tell when a missing folder comes: the nearest folder above it does. */
async function watchAncestor(missing: string, folders: Map<string, string>): Promise<void> {
  let folder = path.resolve(missing);
  while (path.dirname(folder) !== folder) {
    folder = path.dirname(folder);
    const stats = await look(folder);
    if (typeof stats === "string") continue;
    if (!folders.has(folder)) folders.set(folder, markOf(stats));
    return;
  }
}

function isObjectFile(name: string): boolean {
  return /\.(yaml|yml|json)$/.test(name);
}

const MISSING = "it does not exist";

async function look(target: string): Promise<Stats | string> {
  return stat(target).catch((error: unknown) => describe(error));
}

/** What a person calls it; the path stands beside it already. */
export function describe(error: unknown): string {
  const code = error instanceof Error && "code" in error ? String(error.code) : "";
  const known: Readonly<Record<string, string>> = {
    ENOENT: MISSING,
    ENOTDIR: MISSING,
    EACCES: "permission denied",
    ELOOP: "its symbolic links lead in a circle",
    EMFILE: "too many open files",
  };
  return known[code] ?? (error instanceof Error ? error.message : String(error));
}

function stampOf({ dev, ino, size, mtimeMs, ctimeMs }: Stats): Stamp {
  return [dev, ino, size, mtimeMs, ctimeMs].join(":");
}

function markOf({ dev, ino }: Stats): string {
  return `${dev}:${ino}`;
}
