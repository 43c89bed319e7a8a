/** How long to wait before the next attempt at something that failed. */
export interface Backoff {
  /** Before the second attempt. */
  readonly firstDelayMs: number;
  readonly delayMsMax: number;
  /** Each wait is this many times the one before it, until the longest. */
  readonly factor: number;
}

/** For a server that the whole cluster depends on: quick at first, then easy on it. */
export const CONTROL_BACKOFF: Backoff = { firstDelayMs: 200, delayMsMax: 15_000, factor: 2 };

/**
 * The wait after `failures` failures in a row: somewhere in the upper half of the schedule's value.
 *
 * The spread keeps nodes that lost the same server from coming back in step; the floor of a half
 * keeps an unlucky draw from hammering.
 *
 * @param failures  1 or more
 * @param random  in [0, 1), from the caller, so that a test can choose it
 * @returns milliseconds
 */
export function backoffDelayMs(backoff: Backoff, failures: number, random: number): number {
  if (!(failures >= 1)) throw new RangeError(`Cannot plan a retry after ${failures} failures`);
  const planned = backoff.firstDelayMs * backoff.factor ** (failures - 1);
  const delayMs = Math.min(backoff.delayMsMax, planned);
  return delayMs * (0.5 + 0.5 * random);
}
