import { formatSocketAddress } from "#core/ip.ts";
import type { Connection, Decision } from "#core/policy/policy.ts";
import type { Workload } from "#core/service/workload.ts";
import type { Relay } from "#wire/hbone/engine.ts";
import type { Logger } from "../log.ts";
import type { Timers } from "../timers.ts";
import type { FailureFacts } from "./connection-log.ts";
import { DISCOVERY_WAIT_MS, type LocalPod, type MeshState } from "./mesh-state.ts";

/** Several updates that come at once cost one pass over the connections. */
const PASS_DELAY_MS = 50;

interface Entry {
  readonly pod: LocalPod;
  /** As it was last known: discovery may lose it while it still runs. */
  workload: Workload;
  readonly connection: Connection;
  readonly relay: Relay;
  unknownSinceMs: number | undefined;
  verdict: FailureFacts | undefined;
}

/** Every inbound connection that a policy let in, to be closed when a later one would not. */
export class LiveInbound {
  readonly #state: MeshState;
  readonly #timers: Timers;
  readonly #log: Logger;
  readonly #onClosed: () => void;
  readonly #entries = new Set<Entry>();
  readonly #stopListening: () => void;
  #cancelPass: (() => void) | undefined;
  #passAtMs = Number.POSITIVE_INFINITY;

  constructor(state: MeshState, timers: Timers, log: Logger, onClosed: () => void) {
    this.#state = state;
    this.#timers = timers;
    this.#log = log;
    this.#onClosed = onClosed;
    this.#stopListening = state.onChange(() => this.#passWithin(PASS_DELAY_MS));
  }

  /**
   * Watches a connection until it ends. It is judged again at once: policy may have changed while
   * it was being connected.
   *
   * @returns what to tell of it when it was closed because of policy
   */
  watch(
    pod: LocalPod,
    workload: Workload,
    connection: Connection,
    relay: Relay,
  ): () => FailureFacts | undefined {
    const entry: Entry = {
      pod,
      workload,
      connection,
      relay,
      unknownSinceMs: undefined,
      verdict: undefined,
    };
    this.#entries.add(entry);
    void relay.ended.then(() => this.#entries.delete(entry));
    this.#judge(entry);
    return () => entry.verdict;
  }

  close(): void {
    this.#stopListening();
    this.#cancelPass?.();
  }

  #passWithin(delayMs: number): void {
    const atMs = this.#timers.nowMs() + delayMs;
    if (this.#passAtMs <= atMs) return;
    this.#cancelPass?.();
    this.#passAtMs = atMs;
    this.#cancelPass = this.#timers.after(delayMs, () => {
      this.#passAtMs = Number.POSITIVE_INFINITY;
      for (const entry of [...this.#entries]) this.#judge(entry);
    });
  }

  #judge(entry: Entry): void {
    if (entry.verdict) return;
    entry.workload = this.#state.localWorkload(entry.pod) ?? entry.workload;
    const decision = this.#state.index.decide(entry.workload, entry.connection);
    if (decision.verdict === "allow") {
      entry.unknownSinceMs = undefined;
      return;
    }
    if (decision.because === "policyUnknown" && !this.#isOverdue(entry)) return;
    this.#end(entry, describeDenial(decision));
  }

  /** A policy that has just been named may be on its way. */
  #isOverdue(entry: Entry): boolean {
    const nowMs = this.#timers.nowMs();
    entry.unknownSinceMs ??= nowMs;
    const leftMs = entry.unknownSinceMs + DISCOVERY_WAIT_MS - nowMs;
    if (leftMs > 0) this.#passWithin(leftMs);
    return leftMs <= 0;
  }

  #end(entry: Entry, verdict: FailureFacts): void {
    entry.verdict = verdict;
    const { sourceIp, sourceIdentity, destinationIp, destinationPort } = entry.connection;
    this.#log.info(
      {
        "src.addr": sourceIp,
        "src.identity": sourceIdentity,
        "dst.addr": formatSocketAddress({ ip: destinationIp, port: destinationPort }),
        policy: verdict.policy,
      },
      `connection closed: ${verdict.reason}`,
    );
    this.#onClosed();
    entry.relay.abort(verdict.reason);
  }
}

/** Why a connection is denied, in words and by which policy. */
export function describeDenial(decision: Extract<Decision, { verdict: "deny" }>): FailureFacts {
  switch (decision.because) {
    case "denied":
      return {
        flags: "DENY",
        reason: `denied by policy "${decision.by}"`,
        policy: decision.by,
      };
    case "notAllowed": {
      const among = decision.among.join(", ");
      return { flags: "DENY", reason: `not allowed by policy "${among}"`, policy: among };
    }
    case "policyUnknown":
      return {
        flags: "DENY",
        reason: `policy "${decision.by}" is not known yet`,
        policy: decision.by,
      };
  }
}
