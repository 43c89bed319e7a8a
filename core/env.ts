import { MeshError } from "./errors.ts";

/**
 * Reads a process's settings from its environment, and reports everything wrong with them at once:
 * an operator who has to restart a process per mistake makes the second one in a hurry.
 */
export class EnvReader {
  readonly #env: Readonly<Record<string, string | undefined>>;
  readonly #problems: string[] = [];

  constructor(env: Readonly<Record<string, string | undefined>>) {
    this.#env = env;
  }

  /**
   * @param parse  throws, with a reason, where the text is no such value
   * @returns the value. Where there is none, a stand-in that `finish()` lets nobody see.
   */
  required<Value>(name: string, parse: (text: string) => Value): Value {
    const text = this.#env[name];
    if (text === undefined) return this.#reject(`${name} is not set`);
    try {
      return parse(text);
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      return this.#reject(`${name}="${text}": ${reason}`);
    }
  }

  optional<Value, Fallback>(
    name: string,
    fallback: Fallback,
    parse: (text: string) => Value,
  ): Value | Fallback {
    return this.#env[name] === undefined ? fallback : this.required(name, parse);
  }

  /** Notes a mistake that only shows in several settings together. */
  complain(problem: string): void {
    this.#problems.push(problem);
  }

  /** Call last. @throws MeshError `SETTINGS_INVALID`, which lists every problem, one a line */
  finish(): void {
    if (this.#problems.length === 0) return;
    const problems = this.#problems.join("\n  ");
    throw new MeshError("SETTINGS_INVALID", `Cannot read settings:\n  ${problems}`);
  }
  #reject(problem: string): never {
    this.#problems.push(problem);
    return undefined as never;
  }
}

const UNIT_MS = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000 } as const;

/** `250ms`, `5s`, `2m` or `24h`, in milliseconds. A bare number has no unit, and is refused. */
export function parseDurationMs(text: string): number {
  const match = /^(\d+)(ms|s|m|h)$/.exec(text);
  if (!match) throw new SyntaxError("expected a number and ms, s, m or h");
  return Number(match[1]) * UNIT_MS[match[2] as keyof typeof UNIT_MS];
}

/** A port that can be listened on; 0 lets the kernel choose. */
export function parsePort(text: string): number {
  return parseIntegerIn(text, 0, 65_535);
}

/** A decimal integer from `min` to `max`, both included. */
export function parseIntegerIn(text: string, min: number, max: number): number {
  const value = Number(text);
  if (!/^-?\d+$/.test(text) || value < min || value > max) {
    throw new RangeError(`expected an integer from ${min} to ${max}`);
  }
  return value;
}

/** `true` or `1`, `false` or `0`. */
export function parseBoolean(text: string): boolean {
  if (text === "true" || text === "1") return true;
  if (text === "false" || text === "0") return false;
  throw new SyntaxError('expected "true" or "false"');
}

/** A text with at least one character. */
export function parseNonEmpty(text: string): string {
  if (text.trim() === "") throw new SyntaxError("is empty");
  return text;
}
