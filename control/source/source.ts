/**
 * Where objects come from. A directory of files and a Kubernetes API server both look like this:
 * something that tells which objects there are, batch by batch, and where each was written.
 */
import type { Problem } from "./problem.ts";

/** A place that a person can open. */
export interface Origin {
  /** A path, or another name of a place where there is no file. */
  readonly file: string;
  /** Counted from 1. */
  readonly line: number;
}

/** Names and indexes from the top of an object to a field: `["spec", "rules", 0]`. */
export type FieldPath = readonly (string | number)[];

/** What an object is known by, apart from its version: two with one id are the same object. */
export interface ObjectId {
  /** The part of `apiVersion` before the slash; "" for Kubernetes' own first objects. */
  readonly group: string;
  readonly kind: string;
  /** "" for an object that belongs to no namespace. */
  readonly namespace: string;
  readonly name: string;
}

/** An object as it was written: its outermost fields are known to be there, nothing else is. */
export interface RawObject {
  readonly id: ObjectId;
  readonly apiVersion: string;
  /** The whole object, of the types that JSON has. */
  readonly value: unknown;
  readonly origin: Origin;
  /** The line of the field, or of the nearest thing around it that is there. */
  lineOf(path: FieldPath): number;
}

/** Everything that became different since the last one; to be applied as a whole. */
export interface SourceChange {
  readonly upserted: readonly RawObject[];
  readonly deleted: readonly ObjectId[];
  /** All that is wrong with the source now, not only what is new. */
  readonly problems: readonly Problem[];
}

export interface ObjectSource {
  /**
   * Starts to watch. Calls `onChange` with what there is, then with every change to it.
   *
   * @returns once everything that exists has been told. Until then the objects are incomplete, and
   *   nobody should act on them
   * @throws where `signal` fires before that
   */
  start(onChange: (change: SourceChange) => void, signal: AbortSignal): Promise<void>;

  /**
   * @returns once every change that was made before the call has been told. Costs a look at
   *   everything, which calls at the same time share
   */
  catchUp(): Promise<void>;

  /** Ends the watch. No call is made after it has returned. */
  close(): Promise<void>;
}

/** The id as a key of a map. No part of it can contain a newline. */
export function keyOfId({ group, kind, namespace, name }: ObjectId): string {
  return `${group}\n${kind}\n${namespace}\n${name}`;
}

/** `AuthorizationPolicy shop/allow-web`, or `Namespace shop`. */
export function formatId({ kind, namespace, name }: ObjectId): string {
  return namespace === "" ? `${kind} ${name}` : `${kind} ${namespace}/${name}`;
}

/** `spec.rules[0].from`; a name that is no plain word is quoted: `metadata.labels["a/b"]`. */
export function formatPath(path: FieldPath): string {
  return path
    .map((part, index) => {
      if (typeof part === "number") return `[${part}]`;
      if (!/^[A-Za-z_][A-Za-z0-9_-]*$/.test(part)) return `[${JSON.stringify(part)}]`;
      return index === 0 ? part : `.${part}`;
    })
    .join("");
}
