/**
 * What the index offers to those who hand it on: the distributor (discovery) and the authority
 * (certificates). Both see finished, immutable values and never the objects behind them.
 */
import type { Snapshot } from "#core/snapshot.ts";

/** Where the newest snapshot is found. One for the whole mesh: every node is told the same. */
export interface SnapshotSource {
  /**
   * The newest snapshot. Things that did not change since an earlier one are the same objects in
   * both, so that `difference()` may compare by reference.
   */
  current(): Snapshot;

  /**
   * Calls `listener` after every change, once per batch of changes and never from inside this call.
   *
   * @returns a function that ends it
   */
  onChange(listener: () => void): () => void;
}

/** A service account that has a pod on a node, and so a claim to certificates there. */
export interface PlacedIdentity {
  readonly namespace: string;
  readonly serviceAccount: string;
}

/** Which identities run where: what decides who may ask for whose certificate. */
export interface PlacementSource {
  /**
   * The identities of all pods on `node` that have not come to their end, each once. Pods outside
   * the mesh count as well. A node that nobody knows has none.
   */
  podsOnNode(node: string): readonly PlacedIdentity[];
}
