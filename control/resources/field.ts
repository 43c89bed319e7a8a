/**
 * Reads the fields of an object that may hold anything, and remembers everything wrong with them.
 */
import { type FieldPath, formatPath } from "../source/source.ts";

/** What is wrong with a field, and where it is. */
export interface Mistake {
  readonly path: FieldPath;
  readonly reason: string;
}

/**
 * A place in an object. Reading the wrong type is a mistake that is noted, and reads as absent; as
 * in Kubernetes, null is absent as well.
 */
export class Field {
  readonly value: unknown;
  readonly path: FieldPath;
  readonly #mistakes: Mistake[];

  constructor(value: unknown, path: FieldPath, mistakes: Mistake[]) {
    this.value = value;
    this.path = path;
    this.#mistakes = mistakes;
  }

  get isPresent(): boolean {
    return this.value !== undefined && this.value !== null;
  }

  complain(reason: string): undefined {
    complainTo(this.#mistakes, { path: this.path, reason });
  }

  /** The field of that name. Absent where this is absent, or no map. */
  get(name: string): Field {
    const fields = this.#fields();
    const value = Object.hasOwn(fields, name) ? fields[name] : undefined;
    return new Field(value, [...this.path, name], this.#mistakes);
  }

  /**
   * Complains about fields that have another name than those.
   *
   * @param list  where to put that, where it is no mistake like others
   */
  only(names: readonly string[], list = this.#mistakes): this {
    for (const [name, { path }] of this.entries()) {
      if (names.includes(name)) continue;
      const near = nearest(name, names);
      const reason = near === undefined ? "unknown field" : `unknown field, is "${near}" meant`;
      complainTo(list, { path, reason });
    }
    return this;
  }

  /** The fields of a map, in the order they were written. */
  entries(): readonly (readonly [string, Field])[] {
    return Object.keys(this.#fields()).map((name) => [name, this.get(name)] as const);
  }

  #fields(): Readonly<Record<string, unknown>> {
    if (isRecord(this.value)) return this.value;
    if (this.isPresent) this.complain(`expected a map, got ${describeValue(this.value)}`);
    return {};
  }

  /** The items of a list. */
  items(): readonly Field[] {
    if (!this.isPresent) return [];
    if (!Array.isArray(this.value)) {
      this.complain(`expected a list, got ${describeValue(this.value)}`);
      return [];
    }
    return this.value.map(
      (item: unknown, index) => new Field(item, [...this.path, index], this.#mistakes),
    );
  }

  string(): string | undefined {
    if (!this.isPresent) return undefined;
    if (typeof this.value === "string") return this.value;
    const hint = typeof this.value === "object" ? "" : ", write it in quotes";
    return this.complain(`expected a string, got ${describeValue(this.value)}${hint}`);
  }

  boolean(): boolean | undefined {
    if (!this.isPresent) return undefined;
    if (typeof this.value === "boolean") return this.value;
    return this.complain(`expected true or false, got ${describeValue(this.value)}`);
  }

  /** An integer from `min` to `max`, both included. */
  integer(min: number, max: number): number | undefined {
    if (!this.isPresent) return undefined;
    const { value } = this;
    if (typeof value === "number" && Number.isInteger(value) && value >= min && value <= max) {
      return value;
    }
    const wanted = `expected an integer from ${min} to ${max}`;
    return this.complain(`${wanted}, got ${describeValue(value)}`);
  }

  oneOf<Value extends string>(values: readonly Value[]): Value | undefined {
    const text = this.string();
    if (text === undefined) return undefined;
    const value = values.find((known) => known === text);
    if (value !== undefined) return value;
    return this.complain(`expected ${values.join(", ")}; got ${JSON.stringify(text)}`);
  }

  /** A map from text to text, as labels and annotations are. */
  strings(): ReadonlyMap<string, string> {
    const strings = new Map<string, string>();
    for (const [name, field] of this.entries()) {
      const text = field.string();
      if (text !== undefined) strings.set(name, text);
      else if (!field.isPresent) strings.set(name, "");
    }
    return strings;
  }

  /** @param parse  throws, with a reason, where the text is no such value */
  parsed<Value>(parse: (text: string) => Value): Value | undefined {
    const text = this.string();
    if (text === undefined) return undefined;
    try {
      return parse(text);
    } catch (error) {
      return this.complain(error instanceof Error ? error.message : String(error));
    }
  }

  /** Reads this, and tells whether that went without a mistake. */
  apart<Value>(read: (field: Field) => Value): { readonly value: Value; readonly isGood: boolean } {
    const own: Mistake[] = [];
    const value = read(new Field(this.value, this.path, own));
    for (const mistake of own) complainTo(this.#mistakes, mistake);
    return { value, isGood: own.length === 0 };
  }

  /** Complains where there is nothing, and gives it back. */
  required(): this {
    if (!this.isPresent) this.complain("is missing");
    return this;
  }
}

export function describeValue(value: unknown): string {
  if (value === null || value === undefined) return "nothing";
  if (Array.isArray(value)) return "a list";
  if (typeof value === "object") return "a map";
  if (typeof value !== "string") return String(value);
  const shown = value.length > 80 ? `${value.slice(0, 80)}…` : value;
  return JSON.stringify(shown);
}

/** Enough for a person to see the pattern. Each is compared with all others of its object. */
const MISTAKES_MAX = 50;

/** Reading a field twice finds its mistake twice; it is told once. */
function complainTo(list: Mistake[], { path, reason }: Mistake): void {
  if (list.length >= MISTAKES_MAX) return;
  const where = formatPath(path);
  if (list.some((other) => other.reason === reason && formatPath(other.path) === where)) return;
  list.push({ path, reason });
}

function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** The known name that differs only in case, or by one letter: most unknown fields are that. */
function nearest(name: string, known: readonly string[]): string | undefined {
  const lower = name.toLowerCase();
  return known.find((other) => isOneEditApart(lower, other.toLowerCase()));
}

function isOneEditApart(a: string, b: string): boolean {
  if (Math.abs(a.length - b.length) > 1) return false;
  let start = 0;
  while (start < a.length && start < b.length && a[start] === b[start]) start++;
  let end = 0;
  const shorter = Math.min(a.length, b.length) - start;
  while (end < shorter && a[a.length - 1 - end] === b[b.length - 1 - end]) end++;
  return Math.max(a.length, b.length) - start - end <= 1;
}
