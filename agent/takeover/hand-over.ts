/**
 * How an agent that serves the pods of a node hands them over to another process.
 *
 *   serving ──(hello)──▶ attended ──(take)──▶ releasing ──(released)──▶ released ──(done)──▶ ceded
 *      ▲                    │ its end            │ its end, or the limit   │ its end
 *      ├────────────────────┘                    ▼                         │
 *      ├──(its end)── withdrawn ◀──(the limit)───┴─────────────────────────┤
 *      └───────────────────────────────────────────────────────────────────┘
 *
 * Until `ceded` this agent's listeners stand, and it can take the slots back. Whoever has been told
 * to stop but still lives may overwrite them once more: they are taken back again at its end.
 * `next()` decides and does nothing else; predecessor.ts carries the commands out, in their order.
 */

export type HandOver =
  | { readonly phase: "serving" }
  /** A successor prepares; nothing has changed. */
  | { readonly phase: "attended" }
  /** What only one process may do is being ended here. */
  | { readonly phase: "releasing" }
  /** The successor takes slots, ports and files. */
  | { readonly phase: "released" }
  /** It took too long: it has been told to stop, and everything is back here. */
  | { readonly phase: "withdrawn" }
  /** The other process is the agent of this node. This one serves what it has accepted. */
  | { readonly phase: "ceded" };

export type HandOverEvent =
  | { readonly kind: "hello" }
  | { readonly kind: "take" }
  /** Of this process: nothing is written, nothing is held any more that the other one needs. */
  | { readonly kind: "released" }
  | { readonly kind: "done" }
  /** The connection to the successor has ended, and most likely the successor. */
  | { readonly kind: "ended" }
  | { readonly kind: "limitReached" };

export type HandOverCommand =
  | { readonly kind: "welcome" }
  | { readonly kind: "startLimit" }
  | { readonly kind: "stopLimit" }
  /** End everything that only one process may do. Answered with `released`. */
  | { readonly kind: "release" }
  | { readonly kind: "sayReleased" }
  /** Take it all back: slots, ports, files. Harmless where nothing was taken away. */
  | { readonly kind: "reclaim" }
  | { readonly kind: "sayWithdrawn" }
  | { readonly kind: "cede" };

export interface HandOverStep {
  readonly state: HandOver;
  readonly commands: readonly HandOverCommand[];
}

export const SERVING: HandOver = { phase: "serving" };

export function next(state: HandOver, event: HandOverEvent): HandOverStep {
  switch (state.phase) {
    case "serving":
      return event.kind === "hello" ? to("attended", "welcome") : unexpected(state, event);
    case "attended":
      return fromAttended(state, event);
    case "releasing":
    case "released":
      return fromReleased(state, event);
    case "withdrawn":
      // Whatever it says: it was told to stop, and only its end is waited for.
      return event.kind === "ended" ? to("serving", "reclaim") : { state, commands: [] };
    case "ceded":
      return { state, commands: [] };
  }
}

function fromAttended(state: HandOver, event: HandOverEvent): HandOverStep {
  switch (event.kind) {
    case "take":
      return to("releasing", "startLimit", "release");
    case "ended":
      return to("serving");
    case "hello":
    case "released":
    case "done":
    case "limitReached":
      return unexpected(state, event);
  }
}

function fromReleased(
  state: HandOver & { phase: "releasing" | "released" },
  event: HandOverEvent,
): HandOverStep {
  switch (event.kind) {
    case "released":
      return state.phase === "releasing" ? to("released", "sayReleased") : unexpected(state, event);
    case "done":
      return state.phase === "released"
        ? to("ceded", "stopLimit", "cede")
        : unexpected(state, event);
    case "ended":
      return to("serving", "stopLimit", "reclaim");
    case "limitReached":
      return to("withdrawn", "sayWithdrawn", "reclaim");
    case "hello":
    case "take":
      return unexpected(state, event);
  }
}

function to(phase: HandOver["phase"], ...kinds: readonly HandOverCommand["kind"][]): HandOverStep {
  return { state: { phase }, commands: kinds.map((kind) => ({ kind })) };
}

/** A successor that breaks the rules is another program, or of another age: it is not heard. */
function unexpected(state: HandOver, { kind }: HandOverEvent): HandOverStep {
  switch (state.phase) {
    case "serving":
    case "ceded":
      return { state, commands: [] };
    case "withdrawn":
    case "attended":
      return to("withdrawn", "sayWithdrawn");
    case "releasing":
    case "released":
      // The end of a release that was given up on meanwhile is no breach.
      if (kind === "limitReached") return { state, commands: [] };
      return to("withdrawn", "stopLimit", "sayWithdrawn", "reclaim");
  }
}
