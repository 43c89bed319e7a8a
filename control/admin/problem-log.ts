import type { Clock } from "#core/clock.ts";
import { keyOfProblem, type Problem } from "../source/problem.ts";

export interface StandingProblem {
  readonly problem: Problem;
  /** When it was first seen; milliseconds since the epoch. */
  readonly sinceMs: number;
}

export interface ProblemChange {
  readonly opened: readonly StandingProblem[];
  readonly mended: readonly StandingProblem[];
}

/** Tells what is newly wrong and what is right again, each once. */
export class ProblemLog {
  readonly #clock: Clock;
  #standing: ReadonlyMap<string, StandingProblem> = new Map();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  get standing(): readonly StandingProblem[] {
    return [...this.#standing.values()];
  }

  /** @param problems  everything that is wrong now */
  update(problems: readonly Problem[]): ProblemChange {
    const before = this.#standing;
    const nowMs = this.#clock.nowMs();
    const standing = new Map<string, StandingProblem>();
    for (const problem of problems) {
      const key = keyOfProblem(problem);
      standing.set(key, { problem, sinceMs: before.get(key)?.sinceMs ?? nowMs });
    }
    this.#standing = standing;
    return {
      opened: [...standing].filter(([key]) => !before.has(key)).map(([, item]) => item),
      mended: [...before].filter(([key]) => !standing.has(key)).map(([, item]) => item),
    };
  }
}
