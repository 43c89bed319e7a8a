import type { Clock } from "#core/clock.ts";

/** The time, and calls at a later one. Passed in, so that a test can move both by hand. */
export interface Timers extends Clock {
  /** Calls `callback` once, unless the function that is returned was called before. */
  after(delayMs: number, callback: () => void): () => void;
}

/** setTimeout() takes no more than this (24.8 days), and fires at once where it is given more. */
const DELAY_MS_MAX = 2 ** 31 - 1;

export const SYSTEM_TIMERS: Timers = {
  nowMs: () => Date.now(),
  after: (delayMs, callback) => {
    const timer = setTimeout(callback, Math.min(delayMs, DELAY_MS_MAX));
    return () => clearTimeout(timer);
  },
};
