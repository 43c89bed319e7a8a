/**
 * YAML text as documents that know where in the text each of their fields stands, so that a
 * message can name the line the user has to change.
 */
import { isNode, LineCounter, parseAllDocuments, type Document as YamlDocument } from "yaml";
import { reasonOf } from "#core/errors.ts";
import type { LocalProblem as Problem } from "#core/local-api.ts";

/** From the root of a document: keys of mappings, indexes of lists. */
export type FieldPath = readonly (string | number)[];

export interface Document {
  readonly file: string;
  /** Of its first line in the file, from 1. */
  readonly line: number;
  /** Its own text, whole lines from `line` on. */
  readonly text: string;
  readonly value: unknown;
  /** The line of the field, or of the nearest thing around it that is there. */
  lineOf(path: FieldPath): number;
}

export interface Documents {
  readonly documents: readonly Document[];
  readonly problems: readonly Problem[];
}

/** A document may say the same thing this often through aliases; more is an attack or a mistake. */
const ALIASES_MAX = 100;

/** Reads all documents that can be read; each of the others is a problem. */
export function readDocuments(file: string, text: string): Documents {
  const lines = new LineCounter();
  const parsed = parseAllDocuments(text, { lineCounter: lines, prettyErrors: false });
  const documents: Document[] = [];
  const problems: Problem[] = [];
  for (const yaml of Array.isArray(parsed) ? parsed : []) {
    const read = readDocument(file, text, yaml, lines);
    if (read === undefined) continue;
    if ("reason" in read) problems.push(read);
    else documents.push(read);
  }
  return { documents, problems };
}

function readDocument(
  file: string,
  text: string,
  yaml: YamlDocument.Parsed,
  lines: LineCounter,
): Document | Problem | undefined {
  const lineAt = (offset: number) => Math.max(1, lines.linePos(offset).line);
  const unreadable = (line: number, reason: string): Problem => {
    return { file, line, object: "", field: "", reason, severity: "problem", lastGood: false };
  };
  const [error] = yaml.errors;
  if (error) return unreadable(lineAt(error.pos[0]), `Cannot read YAML: ${error.message}`);
  if (yaml.contents === null) return undefined;
  const start = yaml.contents.range[0];
  try {
    const value: unknown = yaml.toJS({ maxAliasCount: ALIASES_MAX });
    if (value === null) return undefined;
    return {
      file,
      line: lineAt(start),
      text: text.slice(text.lastIndexOf("\n", start - 1) + 1, yaml.contents.range[2]),
      value,
      lineOf: (path) => lineAt(offsetOf(yaml, path) ?? start),
    };
  } catch (thrown) {
    return unreadable(lineAt(start), `Cannot read YAML: ${reasonOf(thrown)}`);
  }
}

function offsetOf(yaml: YamlDocument.Parsed, path: FieldPath): number | undefined {
  for (let length = path.length; length > 0; length--) {
    const node: unknown = yaml.getIn(path.slice(0, length), true);
    if (isNode(node) && node.range) return node.range[0];
  }
  return undefined;
}

/** `spec.containers[0].image`. */
export function formatPath(path: FieldPath): string {
  return path.reduce<string>((text, step) => {
    if (typeof step === "number") return `${text}[${step}]`;
    const key = /^[\w-]+$/.test(step) ? step : JSON.stringify(step);
    return text === "" ? key : `${text}.${key}`;
  }, "");
}

/** The inverse of `formatPath()`; a step that it cannot read ends the path. */
export function parsePath(text: string): FieldPath {
  const steps = text.matchAll(/\.?("(?:[^"\\]|\\.)*"|[^.[\]"]+)|\[(\d+)\]/g);
  return Array.from(steps, ([, key = "", index]) => {
    if (index !== undefined) return Number(index);
    return key.startsWith('"') ? String(JSON.parse(key)) : key;
  });
}
