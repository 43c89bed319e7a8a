/** Whose doing a failure is, as seen from the process that reports it. */
type Side = "downstream" | "upstream" | "local";

interface Failure {
  readonly side: Side;
  readonly retry: boolean;
}

/**
 * Every failure the mesh can report, and what a caller may do about it.
 *
 * - `side` tells an operator which log to open next.
 * - `retry` says whether the same work may be tried again: only where it cannot have been done yet.
 *
 * A code is an API: it stands in logs and in docs/errors.md. Add codes, do not reuse them.
 */
const FAILURES = {
  ADDRESS_INVALID: { side: "downstream", retry: false },
  IDENTITY_INVALID: { side: "downstream", retry: false },
  OBJECT_INVALID: { side: "downstream", retry: false },
  RESOURCE_INVALID: { side: "upstream", retry: false },
  SETTINGS_INVALID: { side: "local", retry: false },
  REQUEST_REFUSED: { side: "downstream", retry: false },
  CERTIFICATE_REFUSED: { side: "upstream", retry: false },
  CERTIFICATE_UNAVAILABLE: { side: "upstream", retry: true },
  CONTROL_UNREACHABLE: { side: "upstream", retry: true },
  KERNEL_CALL_FAILED: { side: "local", retry: false },
  KERNEL_UNSUPPORTED: { side: "local", retry: false },
  PEER_REFUSED: { side: "upstream", retry: false },
  PEER_UNREACHABLE: { side: "upstream", retry: true },
  TUNNEL_BROKEN: { side: "upstream", retry: false },
  COMMAND_FAILED: { side: "local", retry: false },
  TIMED_OUT: { side: "upstream", retry: true },
} as const satisfies Record<string, Failure>;

export type MeshErrorCode = keyof typeof FAILURES;

/**
 * A failure that the mesh expects and names. Anything else that is thrown is a bug of ours, and
 * ends the unit of work it happened in.
 *
 * The message says what could not be done, to what, and why: `Cannot <verb> <object>: <reason>`.
 * What caused it goes in `cause`, never into the message too (the log prints the whole chain).
 */
export class MeshError extends Error {
  override readonly name = "MeshError";
  readonly code: MeshErrorCode;
  readonly side: Side;
  readonly retry: boolean;

  constructor(code: MeshErrorCode, message: string, options?: { cause: unknown }) {
    super(message, options);
    this.code = code;
    this.side = FAILURES[code].side;
    this.retry = FAILURES[code].retry;
  }
}

/** The message of anything that was thrown, followed by those of its causes. */
export function reasonOf(thrown: unknown): string {
  if (!(thrown instanceof Error)) return String(thrown);
  return thrown.cause === undefined
    ? thrown.message
    : `${thrown.message}: ${reasonOf(thrown.cause)}`;
}
