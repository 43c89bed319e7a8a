import { open } from "node:fs/promises";
import path from "node:path";
import { setImmediate as nextTurn } from "node:timers/promises";
import { isDeepStrictEqual } from "node:util";
import type { Problem } from "../problem.ts";
import { keyOfId, type ObjectSource, type RawObject, type SourceChange } from "../source.ts";
import { EMPTY_FILE, type FileState, nextState, settleClaims, unreadableState } from "./files.ts";
import { parseFile } from "./parse.ts";
import { describe, type Scan, type Stamp, scan, type Unreadable } from "./scan.ts";
import { FolderWatch } from "./watch.ts";

/** Parsing blocks: some hundred milliseconds for a file of this size. */
export const FILE_BYTES_MAX = 4 * 1024 * 1024;

/** Quiet for this long is the end of a burst of events… */
const QUIET_MS = 30;
/** …but no change waits longer than this for it. */
const DEBOUNCE_MS_MAX = 100;
/** For what a watch does not tell: network file systems, an overflow of the kernel's queue. */
const RESCAN_MS = 5_000;
/**
 * The kernel counts times of files in steps of some milliseconds. A file that was read so soon
 * after it changed may have changed again without a trace.
 */
const FRESH_MS = 100;
/** Saving a file may empty it first. One that stays empty for this long is meant to be empty. */
const EMPTY_FILE_MS = 250;

/**
 * Objects from folders of YAML and JSON files, watched with all folders in them.
 *
 * A file counts as changed when its inode, size or times do. A folder of the settings that is
 * missing holds up the start; one that goes missing later keeps its objects, for an unmounted
 * volume is likelier than a wish to take down the mesh.
 */
export class DirectorySource implements ObjectSource {
  readonly #roots: readonly string[];
  readonly #watch = new FolderWatch(() => this.#onEvent());
  #files = new Map<string, { readonly stamp: Stamp | undefined; readonly state: FileState }>();
  #inForce: ReadonlyMap<string, RawObject> = new Map();
  #problems: readonly Problem[] = [];
  /** Files that were found empty though they held objects, by the moment of that. */
  readonly #emptySinceMs = new Map<string, number>();

  #onChange: ((change: SourceChange) => void) | undefined;
  #onSynced: (() => void) | undefined;
  #isSynced = false;
  #isClosed = false;
  #timer: NodeJS.Timeout | undefined;
  #firstEventMs: number | undefined;
  #looking: Promise<void> | undefined;

  /**
   * @param remembered  what was last good before this process: it stands in for what cannot be read
   *   at the first look, and is forgotten where it is gone from its file
   */
  constructor(roots: readonly string[], remembered: readonly RawObject[] = []) {
    // Names of files are compared with names of folders, so there is one way to write each.
    this.#roots = [...new Set(roots.map((root) => path.resolve(root)))];
    for (const [file, objects] of Map.groupBy(remembered, ({ origin }) => origin.file)) {
      const byKey = new Map(objects.map((object) => [keyOfId(object.id), object]));
      this.#files.set(file, { stamp: undefined, state: { objects: byKey, problems: [] } });
    }
  }

  async start(onChange: (change: SourceChange) => void, signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    this.#onChange = onChange;
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const onAbort = () => reject(signal.reason);
    signal.addEventListener("abort", onAbort, { once: true });
    this.#onSynced = resolve;
    this.#look();
    try {
      await promise;
    } finally {
      signal.removeEventListener("abort", onAbort);
    }
  }

  async catchUp(): Promise<void> {
    // A look that is going on may have passed what changed; the one after it has not begun.
    await this.#looking;
    this.#look();
    await this.#looking;
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    clearTimeout(this.#timer);
    this.#watch.close();
    await this.#looking;
  }

  #onEvent(): void {
    if (this.#isClosed) return;
    const nowMs = performance.now();
    this.#firstEventMs ??= nowMs;
    this.#lookIn(Math.min(QUIET_MS, Math.max(0, this.#firstEventMs + DEBOUNCE_MS_MAX - nowMs)));
  }

  #lookIn(delayMs: number): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#look(), delayMs);
  }

  /** Looks, unless a look is going on: that one sees to the next. */
  #look(): void {
    if (this.#looking || this.#isClosed) return;
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#firstEventMs = undefined;
    this.#looking = this.#lookOnce()
      // A failure of the look itself is no object's fault; the next look may do better.
      .catch((error: unknown) => this.#report([lookProblem(this.#roots, error)], RESCAN_MS))
      .finally(() => {
        this.#looking = undefined;
        if (this.#firstEventMs !== undefined) this.#onEvent();
      });
  }

  async #lookOnce(): Promise<void> {
    const seen = await scan(this.#roots);
    if (this.#isClosed) return;
    const { failures, isNew } = this.#watch.follow(seen.folders);
    await this.#readChanged(seen);
    if (this.#isClosed) return;
    const problems = [...seen.unreadable]
      .filter((one) => !this.#files.has(one.path))
      .map((one) => this.#unreadableProblem(one));
    for (const [folder, reason] of failures) problems.push(unwatchedProblem(folder, reason));
    // What was made between the look and the watch was seen by neither.
    if (isNew) this.#firstEventMs ??= performance.now();
    const isComplete = !seen.unreadable.some((one) => this.#roots.includes(one.path));
    if (isComplete) this.#isSynced = true;
    this.#report(problems, this.#emptySinceMs.size > 0 ? EMPTY_FILE_MS : RESCAN_MS);
  }

  /** Brings `#files` to what was seen. */
  async #readChanged(seen: Scan): Promise<void> {
    const files = new Map<string, { stamp: Stamp | undefined; state: FileState }>();
    for (const [file, { stamp, changedAtMs }] of seen.files) {
      const known = this.#files.get(file);
      if (known?.stamp === stamp && !this.#emptySinceMs.has(file)) {
        files.set(file, known);
        continue;
      }
      const isFresh = Math.abs(Date.now() - changedAtMs) < FRESH_MS;
      const { state, isRead } = await this.#read(file, known?.state);
      files.set(file, { stamp: isFresh || !isRead ? undefined : stamp, state });
    }
    for (const [file, known] of this.#files) {
      if (files.has(file)) continue;
      const hidden = seen.unreadable.find((one) => isAtOrBelow(file, one.path));
      if (!hidden) continue;
      // The trouble with a folder is told once, for all that is in it.
      const state =
        hidden.path === file
          ? unreadableState(file, hidden.reason, known.state)
          : { objects: known.state.objects, problems: [] };
      files.set(file, { stamp: undefined, state });
    }
    for (const file of this.#emptySinceMs.keys()) {
      if (!files.has(file)) this.#emptySinceMs.delete(file);
    }
    this.#files = files;
  }

  /** `isRead` is false where another attempt may do better, though the file stays the same. */
  async #read(
    file: string,
    previous = EMPTY_FILE,
  ): Promise<{ readonly state: FileState; readonly isRead: boolean }> {
    // Parsing blocks; whoever waits for this process gets a turn between two files.
    await nextTurn();
    try {
      const text = await readText(file);
      if (text === undefined) {
        const reason = `longer than ${FILE_BYTES_MAX} bytes`;
        return { state: unreadableState(file, reason, previous), isRead: true };
      }
      const isBeingSaved = this.#isBeingSaved(file, text, previous);
      const state = isBeingSaved ? previous : nextState(file, parseFile(file, text), previous);
      return { state, isRead: true };
    } catch (error) {
      return { state: unreadableState(file, describe(error), previous), isRead: false };
    }
  }

  #isBeingSaved(file: string, text: string, previous: FileState): boolean {
    const isSuspect = text.trim() === "" && previous.objects.size > 0;
    const nowMs = performance.now();
    const sinceMs = this.#emptySinceMs.get(file) ?? nowMs;
    if (isSuspect && nowMs - sinceMs < EMPTY_FILE_MS) {
      this.#emptySinceMs.set(file, sinceMs);
      return true;
    }
    this.#emptySinceMs.delete(file);
    return false;
  }

  /** Tells what became different, and plans the next look. */
  #report(lookProblems: readonly Problem[], nextLookMs: number): void {
    if (this.#isClosed) return;
    if (this.#timer === undefined) this.#lookIn(nextLookMs);
    const states = new Map([...this.#files].map(([file, { state }]) => [file, state]));
    const { objects, duplicates } = settleClaims(states, this.#inForce);
    const problems = [
      ...lookProblems,
      ...[...states.values()].flatMap((state) => state.problems),
      ...duplicates,
    ];
    const upserted = [...objects]
      .filter(([key, object]) => !isSameObject(object, this.#inForce.get(key)))
      .map(([, object]) => object);
    const deleted = [...this.#inForce].filter(([key]) => !objects.has(key)).map(([, { id }]) => id);
    const isSame =
      upserted.length + deleted.length === 0 && isDeepStrictEqual(problems, this.#problems);
    this.#inForce = objects;
    this.#problems = problems;
    if (!isSame || this.#onSynced) this.#onChange?.({ upserted, deleted, problems });
    if (!this.#isSynced) return;
    this.#onSynced?.();
    this.#onSynced = undefined;
  }

  #unreadableProblem({ path: place, reason }: Unreadable): Problem {
    const isKept = [...this.#files.keys()].some((file) => isAtOrBelow(file, place));
    const consequence = isKept
      ? "the last good version of its objects stays"
      : "nothing of it is in force";
    return {
      origin: { file: place, line: 1 },
      object: undefined,
      field: undefined,
      reason: `cannot be read: ${reason}; ${consequence}`,
      effect: isKept ? "lastGood" : "ignored",
    };
  }
}

/** @returns undefined where the file is too long. @throws where it cannot be read as UTF-8 */
async function readText(file: string): Promise<string | undefined> {
  const handle = await open(file, "r");
  try {
    if ((await handle.stat()).size > FILE_BYTES_MAX) return undefined;
    const bytes = await handle.readFile();
    return bytes.length > FILE_BYTES_MAX ? undefined : decode(bytes);
  } finally {
    await handle.close();
  }
}

function decode(bytes: Uint8Array): string {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch (error) {
    throw new SyntaxError("it is not UTF-8 text", { cause: error });
  }
}

/** Whether nobody needs to be told: neither the object nor its place changed. */
function isSameObject(next: RawObject, known: RawObject | undefined): boolean {
  if (next === known) return true;
  return (
    isDeepStrictEqual(next.value, known?.value) && isDeepStrictEqual(next.origin, known?.origin)
  );
}

function isAtOrBelow(file: string, folder: string): boolean {
  return file === folder || file.startsWith(folder.endsWith("/") ? folder : `${folder}/`);
}

function unwatchedProblem(folder: string, reason: string): Problem {
  return {
    origin: { file: folder, line: 1 },
    object: undefined,
    field: undefined,
    reason: `cannot be watched: ${reason}; changes are seen within ${RESCAN_MS / 1_000} s`,
    effect: "partly",
  };
}

function lookProblem(roots: readonly string[], error: unknown): Problem {
  return {
    origin: { file: roots[0] ?? "", line: 1 },
    object: undefined,
    field: undefined,
    reason: `folders cannot be looked through: ${describe(error)}; everything stays as it was`,
    effect: "lastGood",
  };
}
