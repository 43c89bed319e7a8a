import { relative } from "node:path";
import type { ApplyAnswer, LocalProblem } from "#core/local-api.ts";
import { EXIT_FAILED } from "../exit.ts";

/** `shop/cart.yaml:12: Deployment shop/cart: spec.replicas: expected an integer`. */
export function formatProblem(problem: LocalProblem): string {
  const { file, line, object, field, reason, severity, lastGood } = problem;
  const where = file === "" ? "" : line > 0 ? `${shown(file)}:${line}` : shown(file);
  const what = severity === "note" ? `note: ${reason}` : reason;
  const text = [where, object, field, what].filter((part) => part !== "").join(": ");
  return lastGood ? `${text} (the version before it stays in force)` : text;
}

/** Changes go to standard output, problems to standard error and into the exit code. */
export function showAnswer({ changes, problems }: ApplyAnswer, json: boolean): void {
  if (json) process.stdout.write(`${JSON.stringify({ changes, problems }, null, 2)}\n`);
  else {
    for (const { object, action } of changes) process.stdout.write(`${object} ${action}\n`);
    for (const problem of problems) process.stderr.write(`${formatProblem(problem)}\n`);
  }
  if (problems.some(({ severity }) => severity === "problem")) process.exitCode = EXIT_FAILED;
}

/** As the person who reads it would write it. */
function shown(file: string): string {
  const fromHere = relative(process.cwd(), file);
  return fromHere.startsWith("..") ? file : fromHere;
}
