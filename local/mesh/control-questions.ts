/** Questions to the control server that wait for their answer. */
import type { ControlState } from "../fabric/control-watch.ts";

interface Waiting {
  readonly number: number;
  readonly resolve: (state: ControlState | undefined) => void;
}

export class ControlQuestions {
  #asked = 0;
  /** As many as there are calls of the API at a time; each leaves at its limit. */
  readonly #waiting = new Set<Waiting>();

  /** The number of the last question; 0 for none. */
  get asked(): number {
    return this.#asked;
  }

  /** @returns undefined where `signal` is aborted first */
  ask(send: (number: number) => void, signal: AbortSignal): Promise<ControlState | undefined> {
    const { promise, resolve } = Promise.withResolvers<ControlState | undefined>();
    this.#asked += 1;
    const waiting = { number: this.#asked, resolve };
    const giveUp = () => resolve(undefined);
    if (signal.aborted) giveUp();
    this.#waiting.add(waiting);
    signal.addEventListener("abort", giveUp, { once: true });
    send(waiting.number);
    return promise.finally(() => {
      this.#waiting.delete(waiting);
      signal.removeEventListener("abort", giveUp);
    });
  }

  /** @param answers  the last question that `state` answers, with all before it */
  hear(state: ControlState, answers: number): void {
    for (const { number, resolve } of this.#waiting) {
      if (number <= answers) resolve(state);
    }
  }
}
