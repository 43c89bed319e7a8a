import { identityOf, type Workload } from "#core/service/workload.ts";
import type { SpiffeId } from "#core/spiffe-id.ts";
import type { PodUid } from "../workload/pod.ts";

/**
 * Which identities this node's pods have. A pod that discovery loses for a while keeps its own, so
 * that its certificate is not thrown away and asked for again.
 */
export class WantedIdentities<Pod extends { readonly uid: PodUid }> {
  readonly #known = new Map<PodUid, SpiffeId>();
  readonly #workloadOf: (pod: Pod) => Workload | undefined;

  constructor(workloadOf: (pod: Pod) => Workload | undefined) {
    this.#workloadOf = workloadOf;
  }

  /** @param pods  all that are enrolled */
  of(pods: readonly Pod[]): ReadonlySet<SpiffeId> {
    const uids = new Set(pods.map(({ uid }) => uid));
    for (const uid of this.#known.keys()) if (!uids.has(uid)) this.#known.delete(uid);
    for (const pod of pods) {
      const workload = this.#workloadOf(pod);
      if (workload) this.#known.set(pod.uid, identityOf(workload));
    }
    return new Set(this.#known.values());
  }
}
