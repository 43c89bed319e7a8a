/** A clock that only a test moves, and calls that come when it has been moved far enough. */
export class FakeTimers {
  #nowMs: number;
  readonly #planned: { readonly atMs: number; readonly callback: () => void }[] = [];

  constructor(nowMs = Date.parse("2026-11-21T12:00:00Z")) {
    this.#nowMs = nowMs;
  }

  nowMs(): number {
    return this.#nowMs;
  }

  after(delayMs: number, callback: () => void): () => void {
    const call = { atMs: this.#nowMs + delayMs, callback };
    this.#planned.push(call);
    return () => {
      const index = this.#planned.indexOf(call);
      if (index >= 0) this.#planned.splice(index, 1);
    };
  }

  /** Milliseconds until the next call, or undefined where none is planned. */
  nextInMs(): number | undefined {
    const next = this.#next();
    return next && next.atMs - this.#nowMs;
  }

  /** Moves the clock, makes the calls that fall due, and lets what they set off settle. */
  async advance(durationMs: number): Promise<void> {
    const endMs = this.#nowMs + durationMs;
    await settle();
    for (let next = this.#next(); next && next.atMs <= endMs; next = this.#next()) {
      this.#planned.splice(this.#planned.indexOf(next), 1);
      this.#nowMs = Math.max(this.#nowMs, next.atMs);
      next.callback();
      await settle();
    }
    this.#nowMs = endMs;
  }

  #next() {
    return this.#planned.toSorted((left, right) => left.atMs - right.atMs)[0];
  }
}

/** Lets promises that are already kept run their course. */
export function settle(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
