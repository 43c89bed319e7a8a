import type { IpAddress } from "#core/ip.ts";
import type { Connection, Decision } from "#core/policy/policy.ts";
import { MeshIndex, type MeshUpdate } from "#core/service/mesh-index.ts";
import type { PolicyKey, Workload, WorkloadUid } from "#core/service/workload.ts";
import type { Timers } from "../timers.ts";

/** How long a connection waits for discovery to name its workload or a policy. */
export const DISCOVERY_WAIT_MS = 5_000;

/** A pod of this node as the mesh would name it. */
export interface LocalPod {
  readonly name: string;
  readonly namespace: string;
  readonly serviceAccount: string;
  readonly addresses: readonly IpAddress[];
}

export interface MeshStateOptions {
  readonly network: string;
  readonly clusterId: string;
  readonly timers: Timers;
}

/** What this node knows of the mesh, and a way to wait for what it does not know yet. */
export class MeshState {
  readonly index = new MeshIndex();
  readonly network: string;
  readonly #clusterId: string;
  readonly #timers: Timers;
  readonly #listeners = new Set<() => void>();

  constructor({ network, clusterId, timers }: MeshStateOptions) {
    this.network = network;
    this.#clusterId = clusterId;
    this.#timers = timers;
  }

  apply(update: MeshUpdate): void {
    this.index.apply(update);
    for (const listener of [...this.#listeners]) listener();
  }

  /** @returns a function that ends it */
  onChange(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /**
   * The workload that a local pod is. Its name and its service account have to agree: an address
   * may still be that of the pod before it, and the identity is taken from here.
   */
  localWorkload(pod: LocalPod): Workload | undefined {
    const uid = `${this.#clusterId}//Pod/${pod.namespace}/${pod.name}` as WorkloadUid;
    const named = this.index.workloads.get(uid);
    if (named) return isOf(pod, named) ? named : undefined;
    const [address] = pod.addresses;
    const found = address && this.index.workloadAt(this.network, address);
    return found && isOf(pod, found) ? found : undefined;
  }

  /** Waits up to 5 s for discovery to name the workload. */
  waitForLocalWorkload(pod: LocalPod): Promise<Workload | undefined> {
    return this.#waitFor(() => this.localWorkload(pod));
  }

  /** Policies that `workload` names and that nobody has sent. */
  unknownPolicies(workload: Workload): readonly PolicyKey[] {
    return workload.policies.filter((key) => !this.index.policies.has(key));
  }

  /** Whether `workload` accepts `connection`; waits up to 5 s for a policy that is not known. */
  async decide(pod: LocalPod, workload: Workload, connection: Connection): Promise<Decision> {
    const decideNow = () => this.index.decide(this.localWorkload(pod) ?? workload, connection);
    const decision = decideNow();
    if (decision.because !== "policyUnknown") return decision;
    const known = await this.#waitFor(() => {
      const later = decideNow();
      return later.because === "policyUnknown" ? undefined : later;
    });
    return known ?? decision;
  }

  async #waitFor<Value>(find: () => Value | undefined): Promise<Value | undefined> {
    const found = find();
    if (found !== undefined) return found;
    return new Promise((resolve) => {
      const finish = (value: Value | undefined) => {
        cancelTimer();
        stopListening();
        resolve(value);
      };
      const cancelTimer = this.#timers.after(DISCOVERY_WAIT_MS, () => finish(undefined));
      const stopListening = this.onChange(() => {
        const value = find();
        if (value !== undefined) finish(value);
      });
    });
  }
}

function isOf(pod: LocalPod, workload: Workload): boolean {
  return (
    workload.namespace === pod.namespace &&
    workload.name === pod.name &&
    workload.serviceAccount === pod.serviceAccount &&
    !workload.hostNetwork
  );
}
