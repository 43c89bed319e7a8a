import type { SameNode } from "#core/service/workload.ts";

/** What the index has to be told about the mesh as a whole. */
export interface IndexSettings {
  readonly clusterId: string;
  readonly trustDomain: string;
  /** How pods of one node talk that do not say otherwise. */
  readonly sameNode: SameNode;
  /** A policy in this namespace holds in all of them. */
  readonly rootNamespace: string;
  /** Undefined where the root namespace's label says it, or nobody does. */
  readonly network: string | undefined;
}
