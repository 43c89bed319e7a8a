/**
 * Reads the fields of one mapping, and reports everything wrong with them at once.
 *
 * Every field has to be asked for: what nobody asked for is unknown, and a misspelt field is worse
 * than a missing one. So each reader ends with `finish()`.
 */
import type { FieldPath } from "./document.ts";

export type Severity = "problem" | "note";

/** Takes what is wrong with the field at a path. */
export type Report = (path: FieldPath, reason: string, severity: Severity) => void;

type Mapping = Readonly<Record<string, unknown>>;

export interface IntegerRange {
  readonly min: number;
  readonly max: number;
}

export class FieldReader {
  readonly path: FieldPath;
  /** All of it, as it stands. Empty where there was no mapping. */
  readonly mapping: Mapping;
  readonly #report: Report;
  readonly #unread: Set<string>;

  constructor(value: unknown, path: FieldPath, report: Report) {
    const isMapping = isRecord(value);
    if (!isMapping) report(path, `expected a mapping, not ${describe(value)}`, "problem");
    this.path = path;
    this.mapping = isMapping ? value : {};
    this.#report = report;
    this.#unread = new Set(Object.keys(this.mapping));
  }

  complain(name: string, reason: string): void {
    this.#report([...this.path, name], reason, "problem");
  }

  /** The value as it stands; undefined where there is none. A field without a value is none. */
  raw(name: string): unknown {
    this.#unread.delete(name);
    return this.mapping[name] ?? undefined;
  }

  text(name: string): string | undefined {
    const value = this.raw(name);
    if (value === undefined || typeof value === "string") return value;
    const hint = typeof value === "number" || typeof value === "boolean" ? ": quote it" : "";
    this.complain(name, `expected a text, not ${describe(value)}${hint}`);
    return undefined;
  }

  requiredText(name: string): string {
    const text = this.text(name);
    if (text === undefined && this.mapping[name] === undefined) this.complain(name, "is missing");
    if (text === "") this.complain(name, "is empty");
    return text ?? "";
  }

  integer(name: string, { min, max }: IntegerRange): number | undefined {
    const value = this.raw(name);
    if (value === undefined) return undefined;
    if (typeof value === "number" && Number.isInteger(value) && value >= min && value <= max) {
      return value;
    }
    this.complain(name, `expected an integer from ${min} to ${max}, not ${describe(value)}`);
    return undefined;
  }

  boolean(name: string): boolean | undefined {
    const value = this.raw(name);
    if (value === undefined || typeof value === "boolean") return value;
    this.complain(name, `expected true or false, not ${describe(value)}`);
    return undefined;
  }

  oneOf<Value extends string>(name: string, values: readonly Value[]): Value | undefined {
    const text = this.text(name);
    const found = values.find((value) => value === text);
    if (text !== undefined && found === undefined) {
      this.complain(name, `expected ${values.map((v) => `"${v}"`).join(", ")}, not "${text}"`);
    }
    return found;
  }

  texts(name: string): readonly string[] | undefined {
    const list = this.#list(name);
    list?.forEach((item, index) => {
      if (typeof item === "string") return;
      const reason = `expected a text, not ${describe(item)}`;
      this.#report([...this.path, name, index], reason, "problem");
    });
    return list?.filter((item) => typeof item === "string");
  }

  /** A mapping from text to text, as labels are. */
  labels(name: string): Readonly<Record<string, string>> {
    const value = this.raw(name);
    if (value === undefined) return {};
    const reader = new FieldReader(value, [...this.path, name], this.#report);
    const keys = isRecord(value) ? Object.keys(value) : [];
    return Object.fromEntries(keys.map((key) => [key, reader.text(key) ?? ""]));
  }

  object(name: string): FieldReader | undefined {
    const value = this.raw(name);
    if (value === undefined) return undefined;
    return new FieldReader(value, [...this.path, name], this.#report);
  }

  requiredObject(name: string): FieldReader {
    const value = this.raw(name);
    if (value === undefined) this.complain(name, "is missing");
    return new FieldReader(value ?? {}, [...this.path, name], this.#report);
  }

  objects(name: string): readonly FieldReader[] {
    const list = this.#list(name) ?? [];
    return list.map((item, index) => {
      return new FieldReader(item, [...this.path, name, index], this.#report);
    });
  }

  /** Fields that Kubernetes knows and that change nothing on this host. */
  accept(...names: readonly string[]): void {
    for (const name of names) this.#unread.delete(name);
  }

  /** Fields that are taken, though somebody may expect more of them than happens here. */
  note(name: string, reason: string): void {
    if (this.raw(name) !== undefined) this.#report([...this.path, name], reason, "note");
  }

  /** Fields without which the object would not be what its author meant. */
  refuse(names: readonly string[], reason: string): void {
    for (const name of names) {
      if (this.raw(name) !== undefined) this.complain(name, reason);
    }
  }

  /** Call last. */
  finish(): void {
    for (const name of this.#unread) this.complain(name, "is not a field that exists here");
  }

  #list(name: string): readonly unknown[] | undefined {
    const value = this.raw(name);
    if (value === undefined || Array.isArray(value)) return value;
    this.complain(name, `expected a list, not ${describe(value)}`);
    return undefined;
  }
}

function isRecord(value: unknown): value is Mapping {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function describe(value: unknown): string {
  if (value === null || value === undefined) return "nothing";
  if (Array.isArray(value)) return "a list";
  if (typeof value === "object") return "a mapping";
  return typeof value === "string" ? `"${value}"` : String(value);
}
