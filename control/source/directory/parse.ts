/**
 * One file's text to the objects in it. YAML with any number of documents; JSON is read the same
 * way, since it is YAML.
 */
import {
  type Document,
  isAlias,
  isMap,
  isScalar,
  isSeq,
  LineCounter,
  parseAllDocuments,
} from "yaml";
import { reasonOf } from "#core/errors.ts";
import { isNamespaced, splitApiVersion, standingOf } from "../../resources/kinds.ts";
import { type FieldPath, formatPath, type ObjectId, type RawObject } from "../source.ts";

/** What keeps a document, or a part of it, from being an object. */
export interface Fault {
  readonly line: number;
  readonly field: string | undefined;
  readonly reason: string;
}

export interface ParsedFile {
  readonly objects: readonly RawObject[];
  readonly faults: readonly Fault[];
}

/** Real objects nest to about 15 levels; more is a mistake, or an attack on whoever walks them. */
const DEPTH_MAX = 64;

/** Of one file. Who gets more than this will not read them one by one. */
const FAULTS_MAX = 20;

/** A name in Kubernetes: a DNS subdomain (RFC 1123), and for a namespace one label of it. */
const NAME = /^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$/;
const NAME_LENGTH_MAX = 253;
const NAMESPACE = /^[a-z0-9]([-a-z0-9]*[a-z0-9])?$/;
const NAMESPACE_LENGTH_MAX = 63;

/** Never throws: whatever is wrong with the text is a fault. */
export function parseFile(file: string, text: string): ParsedFile {
  const lines = new Lines(text);
  const objects: RawObject[] = [];
  const faults: Fault[] = [];
  for (const [index, document] of lines.documents().entries()) {
    const value = contentOf(document, lines, faults);
    if (value === undefined || value === null) continue;
    for (const part of flatten(value, [])) {
      const place: Place = { file, lines, document: index, path: part.path };
      const object = identify(part.value, part.inherited, place, faults);
      if (object) objects.push(object);
    }
  }
  if (faults.length > FAULTS_MAX) {
    const { line = 1 } = faults[FAULTS_MAX] ?? {};
    const reason = `and ${faults.length - FAULTS_MAX} more mistakes`;
    return {
      objects,
      faults: [...faults.slice(0, FAULTS_MAX), { line, field: undefined, reason }],
    };
  }
  return { objects, faults };
}

/** Where in a file an object stands. */
interface Place {
  readonly file: string;
  readonly lines: Lines;
  readonly document: number;
  /** Of the object in its document: not empty for an item of a list. */
  readonly path: FieldPath;
}

/** What an item of a list need not say itself. */
interface Inherited {
  readonly apiVersion: string;
  readonly kind: string;
}

interface Part {
  readonly value: unknown;
  readonly path: FieldPath;
  readonly inherited: Inherited | undefined;
}

/** @returns undefined where the document has a fault */
function contentOf(document: Document, lines: Lines, faults: Fault[]): unknown {
  // Only the first: what follows from it would hide it.
  const [trouble] = [...document.errors, ...document.warnings];
  if (trouble) {
    const reason =
      trouble.code === "RESOURCE_EXHAUSTION"
        ? depthReason()
        : `not valid YAML: ${trouble.message.replace(/\.$/, "")}`;
    faults.push({ line: lines.lineAt(trouble.pos[0]), field: undefined, reason });
    return undefined;
  }
  const line = lines.lineAt(document.contents?.range?.[0] ?? document.range?.[0] ?? 0);
  try {
    const value: unknown = document.toJS();
    const reason = oddityOf(value, 0);
    if (reason === undefined) return value;
    faults.push({ line, field: undefined, reason });
  } catch (error) {
    // An alias without its anchor, or so many that they stand for more than the file holds.
    faults.push({ line, field: undefined, reason: `not valid YAML: ${reasonOf(error)}` });
  }
  return undefined;
}

/** Why the value could not stand in JSON, or is nested too deep. */
function oddityOf(value: unknown, depth: number): string | undefined {
  if (depth > DEPTH_MAX) return depthReason();
  if (value === null || ["string", "number", "boolean"].includes(typeof value)) return undefined;
  const isPlain = Array.isArray(value) || Object.getPrototypeOf(value) === Object.prototype;
  if (!isPlain || typeof value !== "object") return "a value has a type that JSON does not have";
  for (const inner of Object.values(value)) {
    const reason = oddityOf(inner, depth + 1);
    if (reason !== undefined) return reason;
  }
  return undefined;
}

function depthReason(): string {
  return `nested deeper than ${DEPTH_MAX} levels`;
}

/** A list's items, and those of lists in it; anything else as it is. */
function flatten(value: unknown, path: FieldPath): readonly Part[] {
  if (!isRecord(value)) return [{ value, path, inherited: undefined }];
  const { apiVersion, kind, items } = value;
  const isList = typeof kind === "string" && kind.endsWith("List") && Array.isArray(items);
  if (!isList || typeof apiVersion !== "string") return [{ value, path, inherited: undefined }];
  const inherited = kind === "List" ? undefined : { apiVersion, kind: kind.slice(0, -4) };
  return items.flatMap((item: unknown, index) =>
    flatten(item, [...path, "items", index]).map((part) => ({
      ...part,
      inherited: part.inherited ?? inherited,
    })),
  );
}

/** @returns undefined where it is no object, which is then a fault, or not for the mesh */
function identify(
  value: unknown,
  inherited: Inherited | undefined,
  place: Place,
  faults: Fault[],
): RawObject | undefined {
  const fault = (path: FieldPath, reason: string): undefined => {
    const full = [...place.path, ...path];
    const field = full.length === 0 ? undefined : formatPath(full);
    faults.push({ line: place.lines.lineOf(place.document, full), field, reason });
  };
  if (!isRecord(value)) return fault([], `expected an object, got ${nameType(value)}`);
  const { apiVersion = inherited?.apiVersion, kind = inherited?.kind, metadata } = value;
  if (typeof apiVersion !== "string" || apiVersion === "") {
    return fault(["apiVersion"], missing('a string such as "v1"', apiVersion));
  }
  if (typeof kind !== "string" || kind === "") {
    return fault(["kind"], missing('a string such as "Service"', kind));
  }
  if (standingOf(apiVersion, kind).kind === "ignored") return undefined;
  if (!isRecord(metadata)) return fault(["metadata"], missing("a map with a name", metadata));
  const { name } = metadata;
  const namespace = metadata["namespace"] || "default";
  if (typeof name !== "string" || name.length > NAME_LENGTH_MAX || !NAME.test(name)) {
    const wanted = 'lower case letters, digits, "-" and "."';
    return fault(["metadata", "name"], missing(wanted, name));
  }
  const isText = typeof namespace === "string" && namespace.length <= NAMESPACE_LENGTH_MAX;
  if (!isText || !NAMESPACE.test(namespace)) {
    const wanted = 'lower case letters, digits and "-"';
    return fault(["metadata", "namespace"], missing(wanted, namespace));
  }
  const id: ObjectId = {
    group: splitApiVersion(apiVersion).group,
    kind,
    namespace: isNamespaced(kind) ? namespace : "",
    name,
  };
  return rawObject(id, apiVersion, value, place);
}

function rawObject(id: ObjectId, apiVersion: string, value: unknown, place: Place): RawObject {
  const lineOf = (path: FieldPath) => place.lines.lineOf(place.document, [...place.path, ...path]);
  return { id, apiVersion, value, origin: { file: place.file, line: lineOf([]) }, lineOf };
}

function missing(wanted: string, got: unknown): string {
  return got === undefined
    ? `is missing, expected ${wanted}`
    : `expected ${wanted}, got ${nameType(got)}`;
}

function nameType(value: unknown): string {
  if (value === null) return "null";
  if (Array.isArray(value)) return "a list";
  if (typeof value === "object") return "a map";
  return typeof value === "string" ? JSON.stringify(value) : `${typeof value} ${value}`;
}

function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** Finds lines in a text. Keeps the parsed text only for as long as somebody uses it. */
class Lines {
  readonly #text: string;
  #parsed: WeakRef<Parsed> | undefined;

  constructor(text: string) {
    this.#text = text;
  }

  documents(): readonly Document[] {
    return this.#parse().documents;
  }

  lineAt(offset: number): number {
    return this.#parse().counter.linePos(offset).line || 1;
  }

  /** The line of the last part of `path` that is there. */
  lineOf(document: number, path: FieldPath): number {
    const { documents, counter } = this.#parse();
    let node: unknown = documents[document]?.contents;
    let offset = offsetOf(node) ?? 0;
    for (const part of path) {
      if (isAlias(node)) node = documents[document] && node.resolve(documents[document]);
      const next = child(node, part);
      if (!next) break;
      offset = next.offset ?? offset;
      node = next.node;
    }
    return counter.linePos(offset).line || 1;
  }

  #parse(): Parsed {
    const kept = this.#parsed?.deref();
    if (kept) return kept;
    const counter = new LineCounter();
    const documents = parseAllDocuments(this.#text, {
      lineCounter: counter,
      // Kubernetes' own reader knows merge keys ("<<").
      merge: true,
      // Warnings are faults here: they are reported, not printed.
      logLevel: "error",
      prettyErrors: false,
    });
    const parsed = { documents: [...documents], counter };
    this.#parsed = new WeakRef(parsed);
    return parsed;
  }
}

interface Parsed {
  readonly documents: readonly Document[];
  readonly counter: LineCounter;
}

/** In a map the place of the key, for that is where one looks for a field. */
function child(
  node: unknown,
  part: string | number,
): { node: unknown; offset: number | undefined } | undefined {
  if (isMap(node)) {
    const pair = node.items.find(({ key }) => isScalar(key) && String(key.value) === String(part));
    return pair && { node: pair.value, offset: offsetOf(pair.key) };
  }
  if (!isSeq(node) || typeof part !== "number") return undefined;
  const item = node.items[part];
  return item === undefined ? undefined : { node: item, offset: offsetOf(item) };
}

function offsetOf(node: unknown): number | undefined {
  if (typeof node !== "object" || node === null || !("range" in node)) return undefined;
  const { range } = node;
  return Array.isArray(range) && typeof range[0] === "number" ? range[0] : undefined;
}
