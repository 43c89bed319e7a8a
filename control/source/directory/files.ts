/**
 * What is in force of each file, and of each object where several files hold it. Pure: reading
 * happened before.
 */
import type { Problem } from "../problem.ts";
import { formatId, keyOfId, type RawObject } from "../source.ts";
import type { Fault, ParsedFile } from "./parse.ts";

/** What one file stands for. */
export interface FileState {
  readonly objects: ReadonlyMap<string, RawObject>;
  readonly problems: readonly Problem[];
}

export const EMPTY_FILE: FileState = { objects: new Map(), problems: [] };

/**
 * The file's state after it was read again.
 *
 * A file with a fault is not taken piece by piece: half of an edit would be in force then. What
 * it stood for before stays, and only objects that it never held in a good version are new.
 */
export function nextState(file: string, parsed: ParsedFile, previous: FileState): FileState {
  const { objects, duplicates } = unique(parsed.objects);
  if (parsed.faults.length === 0) return { objects, problems: duplicates };
  const kept = new Map([...objects, ...previous.objects]);
  return {
    objects: kept,
    problems: [...parsed.faults.map((fault) => problemOf(file, fault, previous)), ...duplicates],
  };
}

/** The file's state where it could not be read at all. */
export function unreadableState(file: string, reason: string, previous: FileState): FileState {
  const fault = { line: 1, field: undefined, reason: `cannot be read: ${reason}` };
  return { objects: previous.objects, problems: [problemOf(file, fault, previous)] };
}

function problemOf(file: string, fault: Fault, previous: FileState): Problem {
  const count = previous.objects.size;
  const consequence =
    count > 0
      ? `the last good version of the file's ${count === 1 ? "object" : `${count} objects`} stays`
      : "nothing of this is in force";
  return {
    origin: { file, line: fault.line },
    object: undefined,
    field: fault.field,
    reason: `${fault.reason}; ${consequence}`,
    effect: count > 0 ? "lastGood" : "ignored",
  };
}

/** Of several objects with one id the first. */
function unique(objects: readonly RawObject[]): {
  objects: Map<string, RawObject>;
  duplicates: readonly Problem[];
} {
  const first = new Map<string, RawObject>();
  const duplicates: Problem[] = [];
  for (const object of objects) {
    const key = keyOfId(object.id);
    const other = first.get(key);
    if (other) duplicates.push(duplicateProblem(object, other));
    else first.set(key, object);
  }
  return { objects: first, duplicates };
}

export interface Claims {
  /** The object in force for each id. */
  readonly objects: ReadonlyMap<string, RawObject>;
  readonly duplicates: readonly Problem[];
}

/**
 * Decides between files that hold the same object: the file whose version was in force keeps it;
 * where none was, the first in order of their names has it.
 */
export function settleClaims(
  files: ReadonlyMap<string, FileState>,
  previous: ReadonlyMap<string, RawObject>,
): Claims {
  const claims = new Map<string, RawObject[]>();
  for (const { objects } of files.values()) {
    for (const [key, object] of objects) {
      const claimants = claims.get(key);
      if (claimants) claimants.push(object);
      else claims.set(key, [object]);
    }
  }
  const objects = new Map<string, RawObject>();
  const duplicates: Problem[] = [];
  for (const [key, claimants] of claims) {
    const ownerFile = previous.get(key)?.origin.file;
    const owner = claimants.find(({ origin }) => origin.file === ownerFile) ?? claimants[0];
    if (!owner) continue;
    objects.set(key, owner);
    for (const other of claimants) {
      if (other !== owner) duplicates.push(duplicateProblem(other, owner));
    }
  }
  return { objects, duplicates };
}

function duplicateProblem(second: RawObject, first: RawObject): Problem {
  const place = `${first.origin.file}:${first.origin.line}`;
  return {
    origin: second.origin,
    object: formatId(second.id),
    field: undefined,
    reason: `the same object stands in ${place}; that one is in force, this one is not`,
    effect: "ignored",
  };
}
