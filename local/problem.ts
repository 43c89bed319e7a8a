import { relative } from "node:path";

/** What is wrong with something the user wrote, and where. */
export interface Problem {
  /** As the user named it; "" where the problem is in no file. */
  readonly file: string;
  /** From 1; 0 where it is in no line. */
  readonly line: number;
  /** `Deployment shop/cart`, or "" where the document does not say what it is. */
  readonly object: string;
  /** `spec.template.spec.containers[0].command`, "" for the object as a whole. */
  readonly field: string;
  readonly reason: string;
  /** A note is about something that is taken, yet has no effect here. */
  readonly severity: "problem" | "note";
  /** An earlier version of the object is still in force. */
  readonly lastGood: boolean;
}

/** `shop/cart.yaml:12: Deployment shop/cart: spec.replicas: expected an integer`. */
export function formatProblem(problem: Problem): string {
  const { file, line, object, field, reason, severity, lastGood } = problem;
  const stays = lastGood ? " (the version before it stays in force)" : "";
  const where = file === "" ? [] : [line > 0 ? `${shown(file)}:${line}` : shown(file)];
  const parts = [...where, object, field, severity === "note" ? `note: ${reason}` : reason];
  return parts.filter((part) => part !== "").join(": ") + stays;
}

/** As the person who reads it would write it. */
function shown(file: string): string {
  const fromHere = relative(process.cwd(), file);
  return fromHere.startsWith("..") ? file : fromHere;
}
