/**
 * What two agents of one node say to each other while the younger takes over: lines of JSON on a
 * unix socket. Both check what they hear: they may be of different versions.
 */

/** Of the conversation, not of the agent: another number is refused before anything changes. */
export const PROTOCOL = 1;

export type FromSuccessor =
  | { readonly kind: "hello"; readonly protocol: number; readonly pid: number }
  /** I know the mesh and have certificates: stop writing, and give me ports and files. */
  | { readonly kind: "take" }
  /** I serve every pod. */
  | { readonly kind: "done" };

export type FromPredecessor =
  | { readonly kind: "welcome"; readonly pid: number }
  | { readonly kind: "refused"; readonly reason: string }
  /** `pods` are the uids of those that are up. */
  | { readonly kind: "released"; readonly pods: readonly string[] }
  | { readonly kind: "ceded" }
  /** I go on: end yourself. */
  | { readonly kind: "withdrawn"; readonly reason: string };

/** @throws SyntaxError */
export function parseFromSuccessor(line: string): FromSuccessor {
  const { kind, ...fields } = parseObject(line);
  switch (kind) {
    case "hello":
      return { kind, protocol: numberIn(fields, "protocol"), pid: numberIn(fields, "pid") };
    case "take":
    case "done":
      return { kind };
    default:
      throw new SyntaxError(`unknown message "${String(kind)}"`);
  }
}

/** @throws SyntaxError */
export function parseFromPredecessor(line: string): FromPredecessor {
  const { kind, ...fields } = parseObject(line);
  switch (kind) {
    case "welcome":
      return { kind, pid: numberIn(fields, "pid") };
    case "refused":
    case "withdrawn":
      return { kind, reason: String(fields["reason"]) };
    case "released":
      return { kind, pods: textsIn(fields, "pods") };
    case "ceded":
      return { kind };
    default:
      throw new SyntaxError(`unknown message "${String(kind)}"`);
  }
}

function parseObject(line: string): Readonly<Record<string, unknown>> {
  const value: unknown = JSON.parse(line);
  if (typeof value !== "object" || value === null) throw new SyntaxError("expected an object");
  // Any object has fields of unknown types; each is checked where it is taken.
  return value as Readonly<Record<string, unknown>>;
}

function numberIn(fields: Readonly<Record<string, unknown>>, name: string): number {
  const value = fields[name];
  if (typeof value !== "number") throw new SyntaxError(`"${name}" is no number`);
  return value;
}

function textsIn(fields: Readonly<Record<string, unknown>>, name: string): readonly string[] {
  const value = fields[name];
  if (!Array.isArray(value) || !value.every((item) => typeof item === "string")) {
    throw new SyntaxError(`"${name}" is no list of texts`);
  }
  return value;
}
