import { isDeepStrictEqual } from "node:util";

interface Made<Value> {
  readonly inputs: readonly unknown[];
  readonly value: Value;
}

/**
 * Makes values from inputs, one for each key, and gives back the same reference for as long as
 * either the inputs are the same or what comes out of them is equal.
 *
 * It holds two generations: what was not asked for between two calls of `turn()` is forgotten.
 */
export class Memo<Value> {
  #previous = new Map<string, Made<Value>>();
  #current = new Map<string, Made<Value>>();

  /** @param inputs  everything that `make` depends on, each compared by reference */
  get(key: string, inputs: readonly unknown[], make: () => Value): Value {
    const known = this.#current.get(key) ?? this.#previous.get(key);
    const made = known && isSame(known.inputs, inputs) ? known : { inputs, value: make() };
    const value = known && isDeepStrictEqual(known.value, made.value) ? known.value : made.value;
    this.#current.set(key, { inputs, value });
    return value;
  }

  turn(): void {
    this.#previous = this.#current;
    this.#current = new Map();
  }
}

function isSame(a: readonly unknown[], b: readonly unknown[]): boolean {
  return a.length === b.length && a.every((item, index) => item === b[index]);
}
