/** Several ears hear of one mistake: it is told once, in the words of the one closest to it. */
import { formatProblem, type LocalProblem as Problem } from "#core/local-api.ts";

/**
 * @param own  what the runtime found wrong itself: it names the user's own files and fields
 * @param control  what control found, translated; of a Deployment once for each replica
 */
export function mergeProblems(
  own: readonly Problem[],
  control: readonly Problem[],
): readonly Problem[] {
  const about = ({ object, field }: Problem) => JSON.stringify([object, field]);
  const known = new Set(own.filter(({ object }) => object !== "").map(about));
  const merged = [...own, ...control.filter((problem) => !known.has(about(problem)))];
  return [...new Map(merged.map((problem) => [formatProblem(problem), problem])).values()];
}

/** Says each problem when it appears, and again only if it was gone meanwhile. */
export class ProblemTeller {
  readonly #say: (line: string) => void;
  #told: ReadonlySet<string> = new Set();

  constructor(say: (line: string) => void) {
    this.#say = say;
  }

  /** @param problems  everything that is wrong now */
  tell(problems: readonly Problem[]): void {
    const lines = new Set(problems.map((problem) => formatProblem(problem)));
    for (const line of lines) {
      if (!this.#told.has(line)) this.#say(line);
    }
    this.#told = lines;
  }
}
