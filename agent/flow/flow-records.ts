/**
 * Makes of the kernel's events what people and Prometheus are told of connections that no agent
 * relays: the same lines and the same metrics as for those that one does.
 */
import { formatSocketAddress } from "#core/ip.ts";
import { identityOf } from "#core/service/workload.ts";
import type { DenyEvent, FlowEvent, FlowRole } from "../kernel/flow-layout.ts";
import type { ConnectionFacts, ConnectionLog, ToldConnection } from "../proxy/connection-log.ts";
import { guessService } from "../proxy/inbound.ts";
import type { LocalPod, MeshState } from "../proxy/mesh-state.ts";
import type { Timers } from "../timers.ts";

/** A pod of this node, as the kernel's events lead to it. */
export interface FlowPod extends LocalPod {
  readonly uid: string;
}

export interface FlowRecordsOptions {
  readonly state: MeshState;
  readonly connections: ConnectionLog;
  readonly timers: Timers;
  /** The pod whose network namespace has this cookie. */
  readonly podOf: (netns: bigint) => FlowPod | undefined;
  /** The policy that has this number in the table of a generation. */
  readonly policyOf: (rule: number, generation: number) => string | undefined;
}

/** How many events of each role there were, and what could not be told of. */
export interface FlowCounts {
  readonly events: Readonly<Partial<Record<FlowRole | "denied", number>>>;
  readonly retransmits: Readonly<Partial<Record<FlowRole, number>>>;
  /** Events of pods that have left. */
  readonly unattributed: number;
  /** Connections whose end has not come although there is no room to wait for it. */
  readonly abandoned: number;
}

/** As many as the kernel's own table of direct connections has, at either end. */
const OPEN_MAX = 2 * 65_536;

/** Refusals that are not policy's: what the operator is told of them. */
const REFUSALS: Readonly<Partial<Record<DenyEvent["outcome"], string>>> = {
  blocked: "the pod is not ready: its proxy is not there yet",
  noMemory: "the kernel had no memory to remember where it was going",
  noAddress: "the pod has no address of this family",
  inNoListener: "no agent is there",
  inNotAssigned: "the kernel did not take the agent's listener",
};

export class FlowRecords {
  readonly #options: FlowRecordsOptions;
  /** Direct connections whose end has not been told, by the cookie of the socket. */
  readonly #open = new Map<bigint, ToldConnection>();
  readonly #events: Partial<Record<FlowRole | "denied", number>> = {};
  readonly #retransmits: Partial<Record<FlowRole, number>> = {};
  #unattributed = 0;
  #abandoned = 0;

  constructor(options: FlowRecordsOptions) {
    this.#options = options;
  }

  get counts(): FlowCounts {
    return {
      events: this.#events,
      retransmits: this.#retransmits,
      unattributed: this.#unattributed,
      abandoned: this.#abandoned,
    };
  }

  takeFlow(event: FlowEvent): void {
    const { role, kind } = event;
    this.#events[role] = (this.#events[role] ?? 0) + 1;
    if (kind === "closed") {
      this.#retransmits[role] = (this.#retransmits[role] ?? 0) + event.retransmits;
    }
    if (role !== "directOut" && role !== "directIn") return;
    if (kind === "opened") this.#opened(event);
    else this.#closed(event);
  }

  takeDeny(event: DenyEvent): void {
    const { outcome, rule, generation } = event;
    this.#events.denied = (this.#events.denied ?? 0) + 1;
    const isSource = !outcome.startsWith("in");
    const pod = this.#options.podOf(event.netns);
    if (pod === undefined) {
      this.#unattributed++;
      return;
    }
    if (outcome === "denied" || outcome === "inDenied") {
      const policy = this.#options.policyOf(rule, generation);
      const by = policy === undefined ? `rule ${rule} of table ${generation}` : `"${policy}"`;
      this.#options.connections.failed(this.#factsOf({ ...event, isSource, durationMs: 0 }, pod), {
        flags: "DENY",
        reason: `denied by policy ${by}`,
        ...(policy !== undefined && { policy }),
      });
      return;
    }
    this.#options.connections.failedEarly({
      reporter: isSource ? "source" : "destination",
      client: event.source,
      server: event.destination,
      pod: pod.uid,
      reason: REFUSALS[outcome] ?? `refused by the kernel's programs: ${outcome}`,
    });
  }

  #opened(event: FlowEvent): void {
    const pod = this.#options.podOf(event.netns);
    if (pod === undefined) {
      this.#unattributed++;
      return;
    }
    this.#makeRoom();
    const facts = this.#factsOf(withSide(event), pod);
    this.#open.set(event.socket, this.#options.connections.toldOpened(facts));
  }

  /** Its beginning may be unknown: an earlier agent was told, or the event was lost. */
  #closed(event: FlowEvent): void {
    const { connections, podOf } = this.#options;
    const known = this.#open.get(event.socket);
    this.#open.delete(event.socket);
    const pod = known === undefined ? podOf(event.netns) : undefined;
    if (known === undefined && pod === undefined) {
      this.#unattributed++;
      return;
    }
    if (!event.wasOpen && pod !== undefined) {
      const to = formatSocketAddress(event.destination);
      const reason = `application at ${to} did not accept the connection`;
      const facts = this.#factsOf(withSide(event), pod);
      connections.failed(facts, { flags: "CONNECT", reason });
      return;
    }
    const told = known ?? (pod && connections.toldOpened(this.#factsOf(withSide(event), pod)));
    if (told === undefined) return;
    const { sentBytes, receivedBytes } = event;
    const bytes =
      event.role === "directOut"
        ? { fromDownstream: sentBytes, toDownstream: receivedBytes }
        : { fromDownstream: receivedBytes, toDownstream: sentBytes };
    connections.toldClosed(told, bytes, event);
  }

  /** The oldest goes: its end was lost, or it is one of very many and will be told of as new. */
  #makeRoom(): void {
    if (this.#open.size < OPEN_MAX) return;
    const oldest = this.#open.entries().next().value;
    if (oldest === undefined) return;
    this.#open.delete(oldest[0]);
    this.#abandoned++;
    const nothing = { fromDownstream: 0, toDownstream: 0 };
    const figures = { rttUs: 0, retransmits: 0, durationMs: 0 };
    this.#options.connections.toldClosed(oldest[1], nothing, figures);
  }

  #factsOf(event: Sided, pod: FlowPod): ConnectionFacts {
    const { state, timers } = this.#options;
    const own = state.localWorkload(pod);
    const { isSource } = event;
    const otherIp = isSource ? event.destination.ip : event.source.ip;
    const other = state.index.workloadAt(state.network, otherIp);
    const [source, destination] = isSource ? [own, other] : [other, own];
    const dialled = event.dialled ?? event.destination;
    const named = isSource && state.index.serviceAt(state.network, dialled.ip, pod.namespace);
    const guessed = destination && guessService({ state }, destination, event.destination.port);
    return {
      reporter: isSource ? "source" : "destination",
      pod: pod.uid,
      client: event.source,
      dialled,
      server: event.destination,
      tunnelled: undefined,
      sinceMs: timers.nowMs() - event.durationMs,
      source,
      sourceIdentity: source && identityOf(source),
      destination,
      destinationIdentity: destination && identityOf(destination),
      service: named || guessed,
      security: "attested",
    };
  }
}

type Sided = Pick<FlowEvent, "source" | "destination" | "durationMs"> & {
  readonly dialled?: FlowEvent["dialled"];
  readonly isSource: boolean;
};

function withSide(event: FlowEvent): Sided {
  return { ...event, isSource: event.role === "directOut" };
}
