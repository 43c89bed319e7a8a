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
  /** The nodes that have said that they have all that control has to tell. */
  readonly current: readonly string[];
}

const NOT_READY: ControlState = { ready: false, problems: [], current: [] };

export class ControlWatch {
  readonly #base: string;
  #asked = 0;
  #wake = new AbortController();

  constructor(base: string) {
    this.#base = base;
  }

  /** What is told with a number of at least `number` has seen all that was written before. */
  ask(number: number): void {
    this.#asked = Math.max(this.#asked, number);
    this.#wake.abort();
  }

  /**
   * Calls `tell` again and again until `signal` is aborted: whoever knows that control was started
   * anew waits for the next word, though it may be the same as the one before.
   */
  async run(
    tell: (state: ControlState, answers: number) => void,
    signal: AbortSignal,
  ): Promise<void> {
    let answered = 0;
    while (!signal.aborted) {
      this.#wake = new AbortController();
      const asked = this.#asked;
      const state = await askControl(this.#base, asked > answered);
      if (state.ready) answered = asked;
      tell(state, answered);
      // A question that came meanwhile has woken this one already.
      const either = AbortSignal.any([signal, this.#wake.signal]);
      const pauseMs = state.ready ? RUNNING_MS : STARTING_MS;
      await delay(pauseMs, undefined, { signal: either }).catch(() => null);
    }
  }
}

async function askControl(base: string, fresh: boolean): Promise<ControlState> {
  try {
    const ready = await get(`${base}/healthz/ready`);
    if (!ready.ok) return NOT_READY;
    const problems = await getList(`${base}/problems${fresh ? "?fresh=true" : ""}`);
    const nodes = await getList(`${base}/nodes`);
    const current = nodes.flatMap((each) => (field(each, "current") === true ? [each] : []));
    return {
      ready: true,
      problems: problems.map(problemOf),
      current: current.map((each) => String(field(each, "node"))),
    };
  } catch {
    return NOT_READY; // not there yet, or not there any more
  }
}

function get(url: string): Promise<Response> {
  return fetch(url, { signal: AbortSignal.timeout(TIMEOUT_MS) });
}

async function getList(url: string): Promise<readonly unknown[]> {
  const answer: unknown = await (await get(url)).json();
  return Array.isArray(answer) ? answer : [];
}

function problemOf(value: unknown): ControlProblem {
  const text = (name: string) => String(field(value, name) ?? "");
  return {
    file: text("file"),
    line: Number(field(value, "line") ?? 0),
    object: text("object"),
    field: text("field"),
    reason: text("reason"),
    lastGood: field(value, "lastGood") === true,
  };
}

function field(value: unknown, name: string): unknown {
  return typeof value === "object" && value !== null ? Reflect.get(value, name) : undefined;
}
