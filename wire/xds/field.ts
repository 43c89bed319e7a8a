/** How a decoder says which field of a resource it cannot accept, and why. */
import { MeshError, reasonOf } from "#core/errors.ts";
import { type IpAddress, ipFromBytes } from "#core/ip.ts";
import type { Vocabulary } from "./vocabulary.ts";

/** Only for the way from a field up to `decoding()`, which knows the resource's name. */
class FieldProblem extends Error {
  readonly field: string;
  readonly reason: string;

  constructor(field: string, reason: string) {
    super(`${field}: ${reason}`);
    this.field = field;
    this.reason = reason;
  }
}

export function refuse(field: string, reason: string): never {
  throw new FieldProblem(field, reason);
}

/**
 * Runs a decoder.
 *
 * @throws MeshError `RESOURCE_INVALID`, with the resource, the field and the reason
 */
export function decoding<Value>(resource: string, decode: () => Value): Value {
  try {
    return decode();
  } catch (error) {
    if (!(error instanceof FieldProblem)) throw error;
    const reason = `${error.field} ${error.reason}`;
    throw new MeshError("RESOURCE_INVALID", `Cannot read ${resource}: ${reason}`);
  }
}

/** Decodes what lies below `field`, and puts `field` before the name of what is refused there. */
export function inside<Value>(field: string, decode: () => Value): Value {
  try {
    return decode();
  } catch (error) {
    throw below(field, error);
  }
}

/** Decodes each element; the decoder names what it refuses relative to it, itself by `""`. */
export function each<From, To>(
  field: string,
  values: readonly From[],
  decode: (value: From) => To,
): To[] {
  return values.map((value, index) => {
    try {
      return decode(value);
    } catch (error) {
      throw below(`${field}[${index}]`, error);
    }
  });
}

function below(parent: string, error: unknown): unknown {
  if (!(error instanceof FieldProblem)) return error;
  const path = error.field === "" ? parent : `${parent}.${error.field}`;
  return new FieldProblem(path, error.reason);
}

/** Our word for an enum value; an unknown value is refused, never defaulted. */
export function word<Word extends string>(
  field: string,
  vocabulary: Vocabulary<Word>,
  value: number,
): Word {
  return vocabulary.wordOf.get(value) ?? refuse(field, `has the unknown value ${value}`);
}

/** An address of 4 or 16 bytes. */
export function ipAddress(field: string, bytes: Uint8Array): IpAddress {
  if (bytes.length === 4 || bytes.length === 16) return ipFromBytes(bytes);
  return refuse(field, `is ${bytes.length} bytes long, an address has 4 or 16`);
}

/** A port, or what stands for one: 0 to 65535. */
export function portOrZero(field: string, value: number): number {
  return value <= 65_535 ? value : refuse(field, `is ${value}, ports end at 65535`);
}

/** 1 to 65535. */
export function port(field: string, value: number): number {
  return value > 0 ? portOrZero(field, value) : refuse(field, "is 0, which is no port");
}

/** A text with at least one character. */
export function nonEmpty(field: string, text: string): string {
  return text === "" ? refuse(field, "is empty") : text;
}

/** Turns what a parser of core/ throws into a refusal of `field`. */
export function parsed<Value>(field: string, parse: () => Value): Value {
  try {
    return parse();
  } catch (error) {
    if (!(error instanceof MeshError)) throw error;
    return refuse(field, `is no good: ${reasonOf(error)}`);
  }
}
