import type { Policy } from "./policy/policy.ts";
import type { Service } from "./service/service.ts";
import type { PolicyKey, ServiceKey, Workload, WorkloadUid } from "./service/workload.ts";

/** Everything that one node should know about the mesh. */
export interface Snapshot {
  readonly workloads: ReadonlyMap<WorkloadUid, Workload>;
  readonly services: ReadonlyMap<ServiceKey, Service>;
  readonly policies: ReadonlyMap<PolicyKey, Policy>;
}

export const EMPTY_SNAPSHOT: Snapshot = {
  workloads: new Map(),
  services: new Map(),
  policies: new Map(),
};

/** What has to be sent to bring a holder of the old things to the new ones. */
export interface Difference<Key, Value> {
  readonly changed: readonly Value[];
  readonly removed: readonly Key[];
}

/**
 * Compares by reference: whoever makes snapshots keeps the object of a thing that did not change.
 *
 * @returns the changed in the order of `next`, the removed in the order of `previous`
 */
export function difference<Key, Value>(
  previous: ReadonlyMap<Key, Value>,
  next: ReadonlyMap<Key, Value>,
): Difference<Key, Value> {
  return {
    changed: [...next].filter(([key, value]) => previous.get(key) !== value).map(([, v]) => v),
    removed: [...previous.keys()].filter((key) => !next.has(key)),
  };
}
