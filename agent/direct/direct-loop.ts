import { isDeepStrictEqual } from "node:util";
import { MeshError, reasonOf } from "#core/errors.ts";
import { formatSocketAddress, type SocketAddress } from "#core/ip.ts";
import { identityOf, type PolicyKey, type Workload } from "#core/service/workload.ts";
import type { SpiffeId } from "#core/spiffe-id.ts";
import type { DirectConnection, DirectTables } from "../kernel/direct-tables.ts";
import type { Logger } from "../log.ts";
import { describeDenial } from "../proxy/live-inbound.ts";
import { DISCOVERY_WAIT_MS, type MeshState } from "../proxy/mesh-state.ts";
import type { Timers } from "../timers.ts";
import type { PodUid } from "../workload/pod.ts";
import type { StoredPod } from "../workload/pod-store.ts";
import { type DirectPlan, type KnownPod, planDirect } from "./plan.ts";

/** Several changes that come at once cost one pass: a new table takes the kernel 10 ms and more. */
const PASS_DELAY_MS = 50;
/** After a pass that the kernel has refused. What was in force still is. */
const RETRY_DELAY_MS = 1_000;

/** A way to end connections in a pod's network namespace. */
export interface DestroyingNetns {
  cookie(): bigint;
  destroyTcp(local: SocketAddress, peer: SocketAddress): boolean;
  close(): void;
}

export interface DirectOptions {
  readonly tables: DirectTables;
  readonly state: MeshState;
  /** Those that are up. */
  readonly pods: () => readonly StoredPod[];
  /** Undefined where nothing is at `path` any more. */
  readonly openNetns: (path: string) => DestroyingNetns | undefined;
  readonly timers: Timers;
  readonly log: Logger;
  /** A connection was closed because a policy that has come since denies it. */
  readonly onClosed: () => void;
}

/**
 * Keeps the kernel's tables of direct connections as discovery has it, and ends those connections
 * that policy denies by now.
 *
 * Before `start()` what an earlier agent has left in force stays so.
 */
export class DirectLoop {
  readonly #options: DirectOptions;
  readonly #numbers = new Map<string, number>();
  /** Whose connections may be open still, by the cookie of their namespace. */
  readonly #identities = new Map<bigint, SpiffeId>();
  readonly #unknownSinceMs = new Map<PolicyKey, number>();
  readonly #stopListening: () => void;
  #plan: DirectPlan | undefined;
  #isStarted = false;
  #cancelPass: (() => void) | undefined;

  constructor(options: DirectOptions) {
    this.#options = options;
    this.#stopListening = options.state.onChange(() => this.changed());
  }

  /** Discovery knows everything there is. */
  start(): void {
    this.#isStarted = true;
    this.changed();
  }

  /** Pods have come or gone. */
  changed(): void {
    if (this.#isStarted) this.#passWithin(PASS_DELAY_MS);
  }

  close(): void {
    this.#isStarted = false;
    this.#stopListening();
    this.#cancelPass?.();
  }

  #passWithin(delayMs: number): void {
    this.#cancelPass ??= this.#options.timers.after(delayMs, () => {
      this.#cancelPass = undefined;
      try {
        this.#pass();
      } catch (error) {
        if (!(error instanceof MeshError)) throw error;
        this.#plan = undefined;
        this.#options.log.error({ error: reasonOf(error) }, "direct connections not updated");
        this.#passWithin(RETRY_DELAY_MS);
      }
    });
  }

  #pass(): void {
    const { state } = this.#options;
    const pods = this.#options.pods();
    const known = pods.flatMap(({ uid, addresses, netnsCookie, ...pod }): KnownPod[] => {
      const workload = state.localWorkload({ addresses, ...pod });
      if (workload === undefined) return [];
      this.#identities.set(netnsCookie, identityOf(workload));
      return [{ uid, addresses, workload }];
    });
    const plan = planDirect(state.index, state.network, known, (name) => this.#numberOf(name));
    this.#apply(plan, pods);
    this.#forgetNumbers(plan);
    this.#sweep(pods);
  }

  #numberOf(name: string): number {
    const number = this.#numbers.get(name) ?? this.#options.tables.newId();
    this.#numbers.set(name, number);
    return number;
  }

  /** A class that nobody is of any more gets another number when it comes back. */
  #forgetNumbers(plan: DirectPlan): void {
    const used = new Set(plan.members.map(({ classId }) => classId));
    for (const [name, number] of this.#numbers) {
      if (!used.has(number)) this.#numbers.delete(name);
    }
  }

  /** Who leaves goes first, who joins comes last: between the two, the agent judges. */
  #apply(plan: DirectPlan, pods: readonly StoredPod[]): void {
    const { tables, log } = this.#options;
    const members = new Set<PodUid>(plan.members.map(({ uid }) => uid));
    for (const { uid } of pods) {
      if (!members.has(uid)) tables.withdraw(uid);
    }
    if (!isDeepStrictEqual(plan.rows, this.#plan?.rows)) {
      tables.replacePolicies(plan.rows);
      log.debug({ rows: plan.rows.length, pods: members.size }, "policies in force in the kernel");
    }
    const left = plan.members.filter(({ uid, classId }) => !tables.admit(uid, classId));
    const services = tables.replaceServices(plan.services);
    if (left.length + services.length > 0) {
      const fields = { pods: left.length, services: services.length };
      log.warn(fields, "kernel tables are full: these use the agent");
    }
    this.#plan = plan;
  }

  /**
   * Ends what policy denies by now. After the new table is in force: what was looked up in the old
   * one is among the connections, what comes later meets the new one.
   */
  #sweep(pods: readonly StoredPod[]): void {
    const { tables, state } = this.#options;
    const byAddress = new Map(pods.flatMap((pod) => pod.addresses.map((ip) => [ip, pod])));
    const cookies = new Set(pods.map(({ netnsCookie }) => netnsCookie));
    for (const connection of tables.connections()) {
      const { source, destination, sourceNetns } = connection;
      cookies.add(sourceNetns);
      const pod = byAddress.get(destination.ip);
      const workload = pod && state.localWorkload(pod);
      if (pod && workload) {
        this.#judge(connection, workload, [
          { path: pod.netns, cookie: pod.netnsCookie, local: destination, peer: source },
          ...pods
            .filter(({ netnsCookie }) => netnsCookie === sourceNetns)
            .map(({ netns }) => {
              return { path: netns, cookie: sourceNetns, local: source, peer: destination };
            }),
        ]);
      }
    }
    for (const cookie of this.#identities.keys()) {
      if (!cookies.has(cookie)) this.#identities.delete(cookie);
    }
  }

  #judge(
    { source, destination, sourceNetns }: DirectConnection,
    workload: Workload,
    ends: readonly End[],
  ): void {
    const sourceIdentity = this.#identities.get(sourceNetns);
    const decision = this.#options.state.index.decide(workload, {
      sourceIdentity,
      sourceIp: source.ip,
      destinationIp: destination.ip,
      destinationPort: destination.port,
    });
    if (decision.verdict === "allow") return;
    if (decision.because === "policyUnknown" && !this.#isOverdue(decision.by)) return;
    const { reason, policy } = describeDenial(decision);
    const destroyed = ends.filter((end) => this.#destroy(end));
    if (destroyed.length === 0) return;
    this.#options.onClosed();
    this.#options.log.info(
      {
        "src.addr": formatSocketAddress(source),
        "src.identity": sourceIdentity,
        "dst.addr": formatSocketAddress(destination),
        connection_security_policy: "attested",
        policy,
      },
      `connection closed: ${reason}`,
    );
  }

  /** A policy that has just been named may be on its way. */
  #isOverdue(key: PolicyKey): boolean {
    const nowMs = this.#options.timers.nowMs();
    const sinceMs = this.#unknownSinceMs.get(key) ?? nowMs;
    this.#unknownSinceMs.set(key, sinceMs);
    if (this.#options.state.index.policies.has(key)) this.#unknownSinceMs.delete(key);
    const leftMs = sinceMs + DISCOVERY_WAIT_MS - nowMs;
    if (leftMs > 0) this.#passWithin(leftMs);
    return leftMs <= 0;
  }

  #destroy({ path, cookie, local, peer }: End): boolean {
    const netns = this.#options.openNetns(path);
    try {
      return netns?.cookie() === cookie && netns.destroyTcp(local, peer);
    } finally {
      netns?.close();
    }
  }
}

/** One end of a connection, in the network namespace that it is in. */
interface End {
  readonly path: string;
  readonly cookie: bigint;
  readonly local: SocketAddress;
  readonly peer: SocketAddress;
}
