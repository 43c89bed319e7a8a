/**
 * How one pod of this node enters the mesh and leaves it again.
 *
 *            ┌──────────(opened)──────────▶ up ──(put with other facts)──┐
 *   absent ──┤(put)                         │                            │
 *     ▲      └─(failed)─▶ pending ─(retry)─▶┘◀───────────(opened)────────┘
 *     └────────────(deleted, or its network namespace is gone)── from anywhere
 *
 * A pod that is pending is blocked, not bypassed: capture begins before anything can fail. `next()`
 * decides and does nothing else; enrollment-loop.ts carries out the commands, in their order.
 */
import { isDeepStrictEqual } from "node:util";
import type { StoredPod } from "./pod-store.ts";

export type Enrollment =
  | { readonly phase: "absent" }
  /** `reason` is why it is not up yet. */
  | { readonly phase: "pending"; readonly pod: StoredPod; readonly reason: string }
  | { readonly phase: "up"; readonly pod: StoredPod };

export type PodEvent =
  | { readonly kind: "put"; readonly pod: StoredPod }
  | { readonly kind: "opened" }
  | { readonly kind: "openFailed"; readonly reason: string }
  /** It can never be opened: what is asked for makes no sense. */
  | { readonly kind: "openRefused" }
  | { readonly kind: "retryDue" }
  /** Somebody said so, or the namespace is found to be gone. */
  | { readonly kind: "deleted" };

export type Command =
  /** Write it to disk, in place of what was known under its uid. */
  | { readonly kind: "remember"; readonly pod: StoredPod }
  /** Capture, listen, and let the traffic go. Answered with how it went. */
  | { readonly kind: "open"; readonly pod: StoredPod }
  /** Stop listening; what is connected may end in its own time. Nothing where nothing is open. */
  | { readonly kind: "drain" }
  /** End the capture. Comes first where it comes at all: if it fails, nothing has changed. */
  | { readonly kind: "release" }
  /** Take it off the disk. */
  | { readonly kind: "forget" }
  | { readonly kind: "retryAfter"; readonly delayMs: number };

export interface Step {
  readonly state: Enrollment;
  readonly commands: readonly Command[];
}

export const ABSENT: Enrollment = { phase: "absent" };

/** Nothing listens meanwhile, so the pod waits; the kernel is not asked more often than this. */
const RETRY_DELAY_MS = 5_000;

export function next(state: Enrollment, event: PodEvent): Step {
  switch (state.phase) {
    case "absent":
      return fromAbsent(state, event);
    case "pending":
      return fromPending(state, event);
    case "up":
      return fromUp(state, event);
  }
}

function fromAbsent(state: Enrollment & { phase: "absent" }, event: PodEvent): Step {
  switch (event.kind) {
    case "put":
      return begin(event.pod, []);
    case "deleted":
      // Pins of a pod that the disk has forgotten would block it for ever.
      return { state, commands: [{ kind: "release" }] };
    case "retryDue":
      return { state, commands: [] };
    case "opened":
    case "openFailed":
    case "openRefused":
      return impossible(state, event);
  }
}

function fromPending(state: Enrollment & { phase: "pending" }, event: PodEvent): Step {
  switch (event.kind) {
    case "put":
      return begin(event.pod, isSameNetns(state.pod, event.pod) ? [] : [{ kind: "release" }]);
    case "opened":
      return { state: { phase: "up", pod: state.pod }, commands: [] };
    case "openFailed":
      return {
        state: { ...state, reason: event.reason },
        commands: [{ kind: "retryAfter", delayMs: RETRY_DELAY_MS }],
      };
    case "retryDue":
      return { state, commands: [{ kind: "open", pod: state.pod }] };
    case "openRefused":
    case "deleted":
      return { state: ABSENT, commands: [{ kind: "release" }, { kind: "forget" }] };
  }
}

function fromUp(state: Enrollment & { phase: "up" }, event: PodEvent): Step {
  switch (event.kind) {
    case "put":
      if (isSamePod(state.pod, event.pod)) return { state, commands: [] };
      // In the same namespace the capture stays in force, so that nothing gets by meanwhile.
      return begin(
        event.pod,
        isSameNetns(state.pod, event.pod)
          ? [{ kind: "drain" }]
          : [{ kind: "release" }, { kind: "drain" }],
      );
    case "retryDue":
      return { state, commands: [] };
    case "deleted":
      return {
        state: ABSENT,
        // In this order no new connection is refused: it is left alone before nobody listens.
        commands: [{ kind: "release" }, { kind: "drain" }, { kind: "forget" }],
      };
    case "opened":
    case "openFailed":
    case "openRefused":
      return impossible(state, event);
  }
}

function begin(pod: StoredPod, before: readonly Command[]): Step {
  return {
    state: { phase: "pending", pod, reason: "is being opened" },
    commands: [...before, { kind: "remember", pod }, { kind: "open", pod }],
  };
}

function isSameNetns(left: StoredPod, right: StoredPod): boolean {
  return left.netnsCookie === right.netnsCookie;
}

/** The path may differ: it is the namespace itself that counts. */
function isSamePod(left: StoredPod, right: StoredPod): boolean {
  return (
    isSameNetns(left, right) &&
    left.name === right.name &&
    left.namespace === right.namespace &&
    left.serviceAccount === right.serviceAccount &&
    left.addresses.join() === right.addresses.join() &&
    isDeepStrictEqual(left.dns, right.dns) &&
    isDeepStrictEqual(left.probePorts, right.probePorts) &&
    isDeepStrictEqual(left.strictEgress, right.strictEgress)
  );
}

function impossible(state: Enrollment, event: PodEvent): never {
  throw new TypeError(`"${event.kind}" cannot happen to a pod that is ${state.phase}`);
}
