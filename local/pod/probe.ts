/** When a probe is tried next, and when its outcome counts. */
import type { ProbeSpec } from "../object/object.ts";
import type { ProbeKind } from "../object/parse-probe.ts";

export interface ProbeState {
  readonly attempts: number;
  /** In a row. */
  readonly successes: number;
  /** In a row. */
  readonly failures: number;
  /** undefined before either threshold was reached. */
  readonly healthy: boolean | undefined;
}

export const UNPROBED: ProbeState = {
  attempts: 0,
  successes: 0,
  failures: 0,
  healthy: undefined,
};

/**
 * A program that needs 200 ms to start should not be waited for for a whole period of 10 s, so
 * until the first success there are early attempts, which cannot fail.
 */
const EARLY_DELAY_MS = 50;

/** After the start of the container. A liveness probe only ever takes away: it is never early. */
export function firstDelayMs(kind: ProbeKind, { initialDelayMs, periodMs }: ProbeSpec): number {
  return kind === "liveness" ? Math.max(initialDelayMs, periodMs) : initialDelayMs;
}

export function delayMs(kind: ProbeKind, spec: ProbeSpec, state: ProbeState): number {
  if (kind === "liveness" || state.healthy !== undefined) return spec.periodMs;
  return Math.min(spec.periodMs, EARLY_DELAY_MS * 2 ** state.attempts);
}

/** @returns the state after an attempt; its `healthy` is what the container is to be told */
export function count(
  kind: ProbeKind,
  spec: ProbeSpec,
  state: ProbeState,
  succeeded: boolean,
): ProbeState {
  const attempts = state.attempts + 1;
  if (succeeded) {
    const successes = state.successes + 1;
    const healthy = successes >= spec.successThreshold ? true : state.healthy;
    return { attempts, successes, failures: 0, healthy };
  }
  const isEarly = delayMs(kind, spec, state) < spec.periodMs;
  const failures = isEarly ? state.failures : state.failures + 1;
  const healthy = failures >= spec.failureThreshold ? false : state.healthy;
  return { attempts, successes: 0, failures, healthy };
}
