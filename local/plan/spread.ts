/** Which node a new pod runs on. */

/** A pod that is there already, or has just been planned. */
export interface Placed {
  readonly node: string;
  /** The Deployment it belongs to, undefined for a pod of its own. */
  readonly deployment: string | undefined;
}

/**
 * The node with the fewest pods of the same Deployment; among those the one with the fewest pods;
 * among those the first.
 */
export function chooseNode(
  nodes: readonly string[],
  pods: readonly Placed[],
  deployment: string | undefined,
): string {
  const load = nodes.map((node) => {
    const here = pods.filter((pod) => pod.node === node);
    const siblings = here.filter((pod) => pod.deployment === deployment).length;
    return { node, siblings: deployment === undefined ? 0 : siblings, pods: here.length };
  });
  const [best] = load.toSorted((a, b) => a.siblings - b.siblings || a.pods - b.pods);
  if (best === undefined) throw new TypeError("a cluster has at least one node");
  return best.node;
}
