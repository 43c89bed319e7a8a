/**
 * The life of one container: when it is started again, and what its probes mean.
 *
 *   waiting ──(started)──▶ running ──(exited)──▶ waiting (restart)  or  ended
 *                             └──(probe fails)──▶ stopping ──(exited)──▶ waiting
 *
 * `next()` decides and does nothing else; container-loop.ts carries its commands out.
 */
import type { ContainerSpec, RestartPolicy } from "../object/object.ts";
import type { ProbeKind } from "../object/parse-probe.ts";

interface History {
  /** How often it was started again. */
  readonly restarts: number;
  /** Ends in a row, each soon after its start: what the pause grows with. */
  readonly crashes: number;
  readonly lastExit: Exit | undefined;
}

export interface Exit {
  /** 128 and the number of the signal where it was ended by one. */
  readonly code: number;
  readonly atMs: number;
}

export type Container = History &
  (
    | { readonly phase: "waiting"; readonly reason: WaitingReason }
    | {
        readonly phase: "running";
        readonly sinceMs: number;
        /** Its startup probe has succeeded; until then no other probe counts. */
        readonly started: boolean;
        readonly ready: boolean;
      }
    | { readonly phase: "stopping"; readonly sinceMs: number }
    | { readonly phase: "ended" }
  );

export type WaitingReason = "ContainerCreating" | "CrashLoopBackOff" | "CannotStart";

export type ContainerEvent =
  | { readonly kind: "started"; readonly nowMs: number }
  | { readonly kind: "exited"; readonly nowMs: number; readonly code: number }
  | { readonly kind: "probed"; readonly probe: ProbeKind; readonly healthy: boolean };

export type ContainerCommand =
  | { readonly kind: "start"; readonly delayMs: number }
  | { readonly kind: "stop"; readonly reason: string };

export interface ContainerStep {
  readonly state: Container;
  readonly commands: readonly ContainerCommand[];
}

/** What the decisions need to know of a container. */
export type ContainerRules = Pick<ContainerSpec, "startup" | "readiness"> & {
  readonly restartPolicy: RestartPolicy;
};

/**
 * The first restart is at once, the next after 1 s, then twice as long each time. Kubernetes
 * starts at 10 s and ends at 5 min; here somebody is sitting in front of it.
 */
const PAUSE_MIN_MS = 1_000;
const PAUSE_MAX_MS = 60_000;
/** What ran for this long has not crashed at its start: the pause begins anew (as the kubelet). */
const STABLE_MS = 600_000;

export const INITIAL: Container = {
  phase: "waiting",
  reason: "ContainerCreating",
  restarts: 0,
  crashes: 0,
  lastExit: undefined,
};

export function next(
  state: Container,
  event: ContainerEvent,
  rules: ContainerRules,
): ContainerStep {
  switch (event.kind) {
    case "started": {
      const { restarts, crashes, lastExit } = state;
      const started = rules.startup === undefined;
      const ready = started && rules.readiness === undefined;
      const sinceMs = event.nowMs;
      const running = { phase: "running", sinceMs, started, ready } as const;
      return { state: { ...running, restarts, crashes, lastExit }, commands: [] };
    }
    case "exited":
      return fromExit(state, event, rules);
    case "probed":
      return fromProbe(state, event, rules);
  }
}

function fromExit(
  state: Container,
  { nowMs, code }: ContainerEvent & { kind: "exited" },
  { restartPolicy }: ContainerRules,
): ContainerStep {
  const lastExit: Exit = { code, atMs: nowMs };
  const { restarts } = state;
  const restartsAgain = restartPolicy === "Always" || (restartPolicy === "OnFailure" && code !== 0);
  if (!restartsAgain) {
    return { state: { phase: "ended", restarts, crashes: 0, lastExit }, commands: [] };
  }
  const ranMs = "sinceMs" in state ? nowMs - state.sinceMs : 0;
  const crashes = ranMs >= STABLE_MS ? 1 : state.crashes + 1;
  return {
    state: {
      phase: "waiting",
      reason: crashes > 1 ? "CrashLoopBackOff" : "ContainerCreating",
      restarts: restarts + 1,
      crashes,
      lastExit,
    },
    commands: [{ kind: "start", delayMs: restartDelayMs(crashes) }],
  };
}

/** @param crashes  from 1 */
export function restartDelayMs(crashes: number): number {
  return crashes <= 1 ? 0 : Math.min(PAUSE_MAX_MS, PAUSE_MIN_MS * 2 ** (crashes - 2));
}

function fromProbe(
  state: Container,
  { probe, healthy }: ContainerEvent & { kind: "probed" },
  rules: ContainerRules,
): ContainerStep {
  // A probe that was under way when the container ended says nothing any more.
  if (state.phase !== "running") return { state, commands: [] };
  switch (probe) {
    case "readiness":
      return { state: { ...state, ready: healthy && state.started }, commands: [] };
    case "startup":
      if (!healthy) return stop(state, "startup probe failed");
      return {
        state: { ...state, started: true, ready: rules.readiness === undefined },
        commands: [],
      };
    case "liveness":
      return healthy ? { state, commands: [] } : stop(state, "liveness probe failed");
  }
}

function stop(state: Container & { phase: "running" }, reason: string): ContainerStep {
  const { restarts, crashes, lastExit, sinceMs } = state;
  return {
    state: { phase: "stopping", sinceMs, restarts, crashes, lastExit },
    commands: [{ kind: "stop", reason }],
  };
}

export type PodPhase = "Pending" | "Running" | "Succeeded" | "Failed";

/** @see https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#pod-phase */
export function podPhase(containers: readonly Container[]): PodPhase {
  if (containers.every(({ phase }) => phase === "ended")) {
    return containers.every(({ lastExit }) => lastExit?.code === 0) ? "Succeeded" : "Failed";
  }
  const hasNeverRun = (each: Container) => each.phase === "waiting" && each.restarts === 0;
  return containers.some(hasNeverRun) ? "Pending" : "Running";
}

export function isReady(containers: readonly Container[]): boolean {
  return containers.every((each) => each.phase === "running" && each.ready);
}
