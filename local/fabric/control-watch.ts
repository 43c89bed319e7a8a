/** Asks the control server how it is: from here, since the host has no way into the fabric. */
import { setTimeout as delay } from "node:timers/promises";
import type { ControlProblem } from "./messages.ts";

/** Until it is ready somebody waits for it; afterwards the question costs more than it tells. */
const STARTING_MS = 50;
const RUNNING_MS = 500;
const TIMEOUT_MS = 2_000;

export interface ControlState {
  readonly ready: boolean;
  readonly problems: readonly ControlProblem[];
}

/**
 * Calls `tell` again and again until `signal` is aborted: whoever knows that control was started
 * anew waits for the next word, though it may be the same as the one before.
 */
export async function watchControl(
  base: string,
  tell: (state: ControlState) => void,
  signal: AbortSignal,
): Promise<void> {
  while (!signal.aborted) {
    const state = await askControl(base);
    tell(state);
    await delay(state.ready ? RUNNING_MS : STARTING_MS, undefined, { signal }).catch(() => null);
  }
}

async function askControl(base: string): Promise<ControlState> {
  try {
    const ready = await get(`${base}/healthz/ready`);
    if (!ready.ok) return { ready: false, problems: [] };
    const answer = await get(`${base}/problems`);
    const problems: unknown = await answer.json();
    return { ready: true, problems: Array.isArray(problems) ? problems.map(problemOf) : [] };
  } catch {
    return { ready: false, problems: [] }; // not there yet, or not there any more
  }
}

function get(url: string): Promise<Response> {
  return fetch(url, { signal: AbortSignal.timeout(TIMEOUT_MS) });
}

function problemOf(value: unknown): ControlProblem {
  const fields = typeof value === "object" && value !== null ? value : {};
  const text = (name: string) => String(Reflect.get(fields, name) ?? "");
  return {
    file: text("file"),
    line: Number(Reflect.get(fields, "line") ?? 0),
    object: text("object"),
    field: text("field"),
    reason: text("reason"),
    lastGood: Reflect.get(fields, "lastGood") === true,
  };
}
