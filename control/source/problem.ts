import type { Origin } from "./source.ts";

/**
 * What holds in place of what was asked for:
 *
 * - `lastGood`: the version before this one
 * - `partly`: the object, without what the problem names
 * - `failsClosed`: a refusal of the connections that the object is about
 * - `ignored`: nothing
 */
export type ProblemEffect = "lastGood" | "partly" | "failsClosed" | "ignored";

/** Something that a person has to look at: what was asked for is not what is in force. */
export interface Problem {
  readonly origin: Origin;
  /** `AuthorizationPolicy shop/allow-web`; undefined where the trouble is with a whole file. */
  readonly object: string | undefined;
  /** `spec.rules[0].to`; undefined where it is with the whole object. */
  readonly field: string | undefined;
  /** Why, and what follows from it. A sentence without a period. */
  readonly reason: string;
  readonly effect: ProblemEffect;
}

/** `shop/policy.yaml:12: AuthorizationPolicy shop/web: spec.rules[0].to: must not be empty`. */
export function formatProblem({ origin, object, field, reason }: Problem): string {
  const place = `${origin.file}:${origin.line}`;
  return [place, object, field, reason].filter((part) => part !== undefined).join(": ");
}

/** The same for as long as the same thing is wrong, wherever in its file it moves to. */
export function keyOfProblem({ origin, object, field, reason, effect }: Problem): string {
  return JSON.stringify([origin.file, object, field, reason, effect]);
}
