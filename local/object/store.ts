/**
 * Which objects are wanted, and how a set of files changes that.
 *
 * An object whose new version is wrong keeps the version before it, and an object that vanished
 * from a file that cannot be read in full is not taken for deleted.
 */
import type { LocalProblem as Problem } from "#core/local-api.ts";
import { type Document, readDocuments } from "./document.ts";
import { type LocalObject, nameOf } from "./object.ts";
import { parseObject } from "./parse.ts";

export interface Stored {
  readonly object: LocalObject;
  readonly document: Document;
}

export interface FileText {
  readonly path: string;
  readonly text: string;
}

/** Objects by `nameOf()`. */
export type Objects = ReadonlyMap<string, Stored>;

export interface Reading {
  /** What the files say, of the objects that they say well. */
  readonly objects: Objects;
  /** Objects that are in the files, but wrong. */
  readonly wrong: ReadonlySet<string>;
  /** Files with something in them that nobody can tell the name of. */
  readonly unclear: ReadonlySet<string>;
  readonly problems: readonly Problem[];
}

/** Reads files on their own, whatever was there before. */
export function readFiles(files: readonly FileText[]): Reading {
  const objects = new Map<string, Stored>();
  const wrong = new Set<string>();
  const unclear = new Set<string>();
  const problems: Problem[] = [];
  for (const { path, text } of files) {
    const read = readDocuments(path, text);
    problems.push(...read.problems);
    if (read.problems.length > 0) unclear.add(path);
    for (const document of read.documents) {
      const parsed = parseObject(document);
      problems.push(...parsed.problems);
      if (parsed.object === undefined) {
        if (parsed.name === undefined) unclear.add(path);
        else wrong.add(parsed.name);
        continue;
      }
      const name = nameOf(parsed.object);
      const twin = objects.get(name);
      if (twin === undefined) objects.set(name, { object: parsed.object, document });
      else problems.push(duplicate(name, document, twin.document));
    }
  }
  return { objects, wrong, unclear, problems };
}

function duplicate(object: string, second: Document, first: Document): Problem {
  const reason = `is already in ${first.file}:${first.line}, which stays in force`;
  const { file, line } = second;
  return { file, line, object, field: "", reason, severity: "problem", lastGood: false };
}

export interface Change {
  readonly object: string;
  readonly action: "created" | "configured" | "unchanged" | "deleted";
}

export interface Applied {
  readonly objects: Objects;
  readonly changes: readonly Change[];
  readonly problems: readonly Problem[];
}

/** Adds what the files say to what is wanted. Nothing is deleted. */
export function apply(current: Objects, reading: Reading): Applied {
  const objects = new Map(current);
  const changes: Change[] = [];
  for (const [name, stored] of reading.objects) {
    const before = objects.get(name);
    objects.set(name, stored);
    changes.push({ object: name, action: actionOf(before, stored) });
  }
  return { objects, changes, problems: withLastGood(reading.problems, objects) };
}

/**
 * Follows a watched set of files from one reading to the next. What did not change in the files is
 * left as it is, so that an object that was scaled, or applied anew, is not turned back.
 */
export function follow(current: Objects, previous: Reading | undefined, next: Reading): Applied {
  const objects = new Map(current);
  const changes: Change[] = [];
  for (const [name, stored] of next.objects) {
    const before = previous?.objects.get(name);
    const held = objects.get(name);
    if (before === undefined || !isSameDocument(before.document, stored.document)) {
      objects.set(name, stored);
      changes.push({ object: name, action: actionOf(held, stored) });
    } else if (held !== undefined && isSameDocument(held.document, stored.document)) {
      // Its lines may have moved.
      objects.set(name, { ...held, document: stored.document });
    }
  }
  for (const [name, { document }] of previous?.objects ?? []) {
    const isKept =
      next.objects.has(name) || next.wrong.has(name) || next.unclear.has(document.file);
    const held = objects.get(name);
    if (isKept || held === undefined || !isSameDocument(held.document, document)) continue;
    objects.delete(name);
    changes.push({ object: name, action: "deleted" });
  }
  return { objects, changes, problems: withLastGood(next.problems, objects) };
}

function actionOf(before: Stored | undefined, after: Stored): Change["action"] {
  if (before === undefined) return "created";
  const isSame = isSameDocument(before.document, after.document);
  return isSame && replicasOf(before) === replicasOf(after) ? "unchanged" : "configured";
}

/** The one field that is changed without a document. */
function replicasOf({ object }: Stored): number | undefined {
  return object.kind === "Deployment" ? object.replicas : undefined;
}

/**
 * What the next reading has to be compared with: objects that are only missing because something
 * is wrong count as still being there.
 */
export function remember(previous: Reading | undefined, next: Reading): Reading {
  const kept = [...(previous?.objects ?? [])].filter(([name, { document }]) => {
    return next.wrong.has(name) || next.unclear.has(document.file);
  });
  return { ...next, objects: new Map([...kept, ...next.objects]) };
}

/** Removes objects by name; a namespace takes all that is in it along. */
export function remove(current: Objects, names: readonly string[]): Applied {
  const objects = new Map(current);
  const changes: Change[] = [];
  for (const name of names) {
    const stored = objects.get(name);
    if (stored === undefined) continue;
    const isNamespace = stored.object.kind === "Namespace";
    for (const [other, { object }] of current) {
      const isInside = isNamespace && object.metadata.namespace === stored.object.metadata.name;
      if ((other === name || isInside) && objects.delete(other)) {
        changes.push({ object: other, action: "deleted" });
      }
    }
  }
  return { objects, changes, problems: [] };
}

function isSameDocument(a: Document, b: Document): boolean {
  return a.text === b.text && a.file === b.file;
}

function withLastGood(problems: readonly Problem[], objects: Objects): readonly Problem[] {
  return problems.map((problem) => {
    return { ...problem, lastGood: problem.severity === "problem" && objects.has(problem.object) };
  });
}
