/**
 * What one node knows of the mesh, arranged for the questions that a connection asks.
 *
 * Fed with changes as they arrive, in any order: an endpoint may come before its service, a
 * workload before its policy.
 */

import { blockContains, type IpAddress } from "../ip.ts";
import { evaluate } from "../policy/evaluate.ts";
import type { Connection, Decision, Policy } from "../policy/policy.ts";
import type { Difference } from "../snapshot.ts";
import type { Service } from "./service.ts";
import type { PolicyKey, ServiceKey, Workload, WorkloadUid } from "./workload.ts";

/** A batch of changes. What is left out did not change. */
export interface MeshUpdate {
  readonly workloads?: Difference<WorkloadUid, Workload>;
  readonly services?: Difference<ServiceKey, Service>;
  readonly policies?: Difference<PolicyKey, Policy>;
}

/** The policies that a workload is under, and those it names that have not arrived. */
export interface WorkloadPolicies {
  readonly policies: readonly Policy[];
  readonly unknown: readonly PolicyKey[];
}

export class MeshIndex {
  readonly #workloads = new Map<WorkloadUid, Workload>();
  readonly #services = new Map<ServiceKey, Service>();
  readonly #policies = new Map<PolicyKey, Policy>();
  /** By `network/ip`. Several workloads claim one address while a pod replaces another. */
  readonly #byAddress = new MultiMap<string, Workload>();
  readonly #byService = new MultiMap<ServiceKey, Workload>();
  /** By `network/ip`, for addresses of a single host. */
  readonly #byVirtualIp = new MultiMap<string, Service>();
  /** Services with an address that is a block of more than one. */
  readonly #withBlocks = new Set<Service>();
  readonly #byHostname = new MultiMap<string, Service>();

  get workloads(): ReadonlyMap<WorkloadUid, Workload> {
    return this.#workloads;
  }

  get services(): ReadonlyMap<ServiceKey, Service> {
    return this.#services;
  }

  get policies(): ReadonlyMap<PolicyKey, Policy> {
    return this.#policies;
  }

  apply(update: MeshUpdate): void {
    for (const uid of update.workloads?.removed ?? []) this.#removeWorkload(uid);
    for (const workload of update.workloads?.changed ?? []) this.#putWorkload(workload);
    for (const key of update.services?.removed ?? []) this.#removeService(key);
    for (const service of update.services?.changed ?? []) this.#putService(service);
    for (const key of update.policies?.removed ?? []) this.#policies.delete(key);
    for (const policy of update.policies?.changed ?? []) this.#policies.set(policy.key, policy);
  }

  /**
   * The workload that owns `ip`. Where several claim it, a pod in the mesh comes before any pod,
   * and that before others; workloads on their node's network are not found by address.
   */
  workloadAt(network: string, ip: IpAddress): Workload | undefined {
    return best(this.#byAddress.get(`${network}/${ip}`), rankOfClaim);
  }

  /** The workload that a pod is, by name: the way to a pod that is on its node's network too. */
  workloadNamed(namespace: string, name: string): Workload | undefined {
    for (const workload of this.#workloads.values()) {
      if (workload.namespace === namespace && workload.name === name) return workload;
    }
    return undefined;
  }

  /** The service that clients in `namespace` mean by `ip`: single addresses first, then blocks. */
  serviceAt(network: string, ip: IpAddress, namespace: string): Service | undefined {
    const single = visibleTo(this.#byVirtualIp.get(`${network}/${ip}`), namespace);
    if (single.length > 0) return best(single, (service) => preference(service, namespace));
    const blocks = visibleTo([...this.#withBlocks], namespace).filter((service) =>
      Number.isFinite(prefixLength(service, network, ip)),
    );
    return best(blocks, (service) => [
      ...preference(service, namespace).slice(0, 1),
      prefixLength(service, network, ip),
      ...preference(service, namespace).slice(1),
    ]);
  }

  /** The service that clients in `namespace` mean by a host name. */
  serviceNamed(hostname: string, namespace: string): Service | undefined {
    const named = visibleTo(this.#byHostname.get(hostname), namespace);
    return best(named, (service) => preference(service, namespace));
  }

  /** Every workload that says it is an endpoint of the service, healthy or not. */
  endpointsOf(key: ServiceKey): readonly Workload[] {
    return this.#byService.get(key);
  }

  policiesFor(workload: Workload): WorkloadPolicies {
    const policies: Policy[] = [];
    const unknown: PolicyKey[] = [];
    for (const policy of this.#policies.values()) {
      const isOfNamespace = policy.scope === "namespace" && policy.namespace === workload.namespace;
      if (policy.scope === "global" || isOfNamespace) policies.push(policy);
    }
    for (const key of workload.policies) {
      const policy = this.#policies.get(key);
      if (policy === undefined) unknown.push(key);
      else if (policy.scope === "workload") policies.push(policy);
    }
    return { policies, unknown };
  }

  /**
   * Whether `workload` accepts `connection`.
   *
   * A policy that the workload names and nobody has sent yet may be the one that denies, so until
   * it is known the answer is no (docs/decisions/0004-fail-closed.md).
   */
  decide(workload: Workload, connection: Connection): Decision {
    const { policies, unknown } = this.policiesFor(workload);
    const missing = unknown[0];
    if (missing !== undefined) return { verdict: "deny", because: "policyUnknown", by: missing };
    return evaluate(policies, connection);
  }

  #putWorkload(workload: Workload): void {
    this.#removeWorkload(workload.uid);
    this.#workloads.set(workload.uid, workload);
    for (const key of addressKeys(workload)) this.#byAddress.add(key, workload);
    for (const key of workload.services.keys()) this.#byService.add(key, workload);
  }

  #removeWorkload(uid: WorkloadUid): void {
    const workload = this.#workloads.get(uid);
    if (workload === undefined) return;
    this.#workloads.delete(uid);
    for (const key of addressKeys(workload)) this.#byAddress.remove(key, workload);
    for (const key of workload.services.keys()) this.#byService.remove(key, workload);
  }

  #putService(service: Service): void {
    this.#removeService(service.key);
    this.#services.set(service.key, service);
    this.#byHostname.add(service.hostname, service);
    for (const key of virtualIpKeys(service)) this.#byVirtualIp.add(key, service);
    if (service.addresses.some(({ block }) => !isSingle(block))) this.#withBlocks.add(service);
  }

  #removeService(key: ServiceKey): void {
    const service = this.#services.get(key);
    if (service === undefined) return;
    this.#services.delete(key);
    this.#byHostname.remove(service.hostname, service);
    for (const address of virtualIpKeys(service)) this.#byVirtualIp.remove(address, service);
    this.#withBlocks.delete(service);
  }
}

/** Several values under one key, in the order they came. */
class MultiMap<Key, Value> {
  readonly #sets = new Map<Key, Set<Value>>();

  add(key: Key, value: Value): void {
    const values = this.#sets.get(key);
    if (values) values.add(value);
    else this.#sets.set(key, new Set([value]));
  }

  remove(key: Key, value: Value): void {
    const values = this.#sets.get(key);
    values?.delete(value);
    if (values?.size === 0) this.#sets.delete(key);
  }

  get(key: Key): readonly Value[] {
    return [...(this.#sets.get(key) ?? [])];
  }
}

function addressKeys(workload: Workload): readonly string[] {
  if (workload.hostNetwork) return [];
  return workload.addresses.map((ip) => `${workload.network}/${ip}`);
}

function virtualIpKeys(service: Service): readonly string[] {
  return service.addresses
    .filter(({ block }) => isSingle(block))
    .map(({ network, block }) => `${network}/${block.address}`);
}

function isSingle(block: { readonly address: IpAddress; readonly length: number }): boolean {
  return block.length === (block.address.includes(":") ? 128 : 32);
}

function visibleTo(services: readonly Service[], namespace: string): readonly Service[] {
  return services.filter((s) => s.visibility === "public" || s.namespace === namespace);
}

function rankOfClaim(workload: Workload): readonly number[] {
  return [workload.uid.includes("//Pod/") ? 1 : 0, workload.tunnelProtocol === "hbone" ? 1 : 0];
}

function preference(service: Service, namespace: string): readonly number[] {
  return [service.namespace === namespace ? 1 : 0, service.canonical ? 1 : 0];
}

/** Of the service's longest block that holds `ip`; minus infinity where none does. */
function prefixLength(service: Service, network: string, ip: IpAddress): number {
  const holding = service.addresses.filter(
    (address) => address.network === network && blockContains(address.block, ip),
  );
  return Math.max(Number.NEGATIVE_INFINITY, ...holding.map(({ block }) => block.length));
}

/** The first of those with the greatest rank, compared number by number. */
function best<Value>(
  values: readonly Value[],
  rank: (value: Value) => readonly number[],
): Value | undefined {
  let winner: Value | undefined;
  let winnerRank: readonly number[] = [];
  for (const value of values) {
    const valueRank = rank(value);
    if (winner === undefined || isGreater(valueRank, winnerRank)) {
      winner = value;
      winnerRank = valueRank;
    }
  }
  return winner;
}

function isGreater(left: readonly number[], right: readonly number[]): boolean {
  const index = left.findIndex((value, at) => value !== right[at]);
  return index >= 0 && (left[index] ?? 0) > (right[index] ?? 0);
}
