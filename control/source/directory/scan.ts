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
/** Below the kernel's usual limit on watches, and an end to links that lead everywhere. */
const FOLDERS_MAX = 5_000;
const FOLDER_DEPTH_MAX = 16;

/**
 * Looks through `roots` and all folders in them. Symbolic links are followed, after everything
 * else, and each folder is entered once, by whatever name it is found first. Names that start with
 * a dot are left out: editors and mounted volumes keep their temporary files there.
 */
export async function scan(roots: readonly string[]): Promise<Scan> {
  const walk: Walk = {
    files: new Map(),
    folders: new Map(),
    unreadable: [],
    marks: new Set(),
    links: [],
  };
  for (const root of roots) await enter({ path: root, depth: 0, root }, walk);
  // Grows while it is walked through: a folder behind a link has links of its own.
  for (const link of walk.links) await followLink(link, walk);
  for (const { path: missing } of walk.unreadable) await watchAncestor(missing, walk.folders);
  const files = new Map([...walk.files].sort(([a], [b]) => (a < b ? -1 : 1)));
  return { files, folders: walk.folders, unreadable: walk.unreadable };
}

interface Walk {
  readonly files: Map<string, SeenFile>;
  readonly folders: Map<string, string>;
  readonly unreadable: Unreadable[];
  /** Of the folders that were entered. */
  readonly marks: Set<string>;
  readonly links: Place[];
}

interface Place {
  readonly path: string;
  readonly depth: number;
  readonly root: string;
}

async function enter(place: Place, walk: Walk): Promise<void> {
  const { path: folder, depth, root } = place;
  const refuse = (reason: string): void => {
    walk.unreadable.push({ path: folder, reason });
  };
  const stats = await look(folder);
  if (typeof stats === "string") return refuse(stats);
  if (!stats.isDirectory()) return refuse("it is not a folder");
  if (depth > FOLDER_DEPTH_MAX) {
    return refuse(`folders are nested deeper than ${FOLDER_DEPTH_MAX} levels`);
  }
  const mark = markOf(stats);
  if (walk.marks.has(mark)) return;
  if (walk.marks.size >= FOLDERS_MAX) return refuseMore(root, `${FOLDERS_MAX} folders`, walk);
  walk.marks.add(mark);
  walk.folders.set(folder, mark);
  const entries = await readdir(folder, { withFileTypes: true }).catch((error: unknown) =>
    describe(error),
  );
  if (typeof entries === "string") return refuse(entries);
  for (const entry of entries.sort((a, b) => (a.name < b.name ? -1 : 1))) {
    const inner: Place = { path: path.join(folder, entry.name), depth: depth + 1, root };
    if (entry.name.startsWith(".")) continue;
    if (entry.isSymbolicLink()) walk.links.push(inner);
    else if (entry.isDirectory()) await enter(inner, walk);
    else if (isObjectFile(entry.name)) await addFile(inner, walk);
  }
}

async function followLink(link: Place, walk: Walk): Promise<void> {
  const stats = await look(link.path);
  if (typeof stats !== "string" && stats.isDirectory()) return enter(link, walk);
  if (!isObjectFile(link.path)) return;
  await addFile(link, walk);
  if (walk.files.has(link.path)) await watchTarget(link.path, walk.folders);
}

async function addFile({ path: file, root }: Place, walk: Walk): Promise<void> {
  const stats = await look(file);
  // Gone since its folder was read, or a link to nowhere: there is no such file.
  if (stats === MISSING) return;
  if (typeof stats === "string") {
    walk.unreadable.push({ path: file, reason: stats });
    return;
  }
  if (!stats.isFile()) return;
  if (walk.files.size >= FILES_MAX) return refuseMore(root, `${FILES_MAX} files`, walk);
  const changedAtMs = Math.max(stats.mtimeMs, stats.ctimeMs);
  walk.files.set(file, { stamp: stampOf(stats), changedAtMs });
}

/** What was not looked at is not gone, so the root as a whole counts as unreadable. Told once. */
function refuseMore(root: string, limit: string, walk: Walk): void {
  if (walk.unreadable.some((one) => one.path === root)) return;
  walk.unreadable.push({ path: root, reason: `there are more than ${limit}` });
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
