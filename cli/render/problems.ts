import { relative } from "node:path";
import { type ApplyAnswer, formatProblem, type LocalProblem } from "#core/local-api.ts";
import { EXIT_FAILED } from "../exit.ts";

/** Changes go to standard output, problems to standard error and into the exit code. */
export function showAnswer({ changes, problems }: ApplyAnswer, json: boolean): void {
  if (json) process.stdout.write(`${JSON.stringify({ changes, problems }, null, 2)}\n`);
  else {
    for (const { object, action } of changes) process.stdout.write(`${object} ${action}\n`);
    for (const problem of problems) process.stderr.write(`${showProblem(problem)}\n`);
  }
  if (problems.some(({ severity }) => severity === "problem")) process.exitCode = EXIT_FAILED;
}

/** With paths as the person who reads it would write them. */
export function showProblem(problem: LocalProblem): string {
  return formatProblem(problem, (file) => {
    const fromHere = relative(process.cwd(), file);
    return file === "" || fromHere.startsWith("..") ? file : fromHere;
  });
}
