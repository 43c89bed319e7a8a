import type { Policy } from "#core/policy/policy.ts";
import type { PolicyKey } from "#core/service/workload.ts";
import { selects } from "../resources/metadata.ts";
import type { AuthorizationPolicyObject, Labels, Placed } from "../resources/objects.ts";

/** The AuthorizationPolicies of the mesh, by whom they can select. */
export class AuthorizationPolicies {
  readonly policies: readonly Policy[];
  readonly #rootNamespace: string;
  readonly #selecting = new Map<string, AuthorizationPolicyObject[]>();

  constructor(objects: Iterable<Placed<AuthorizationPolicyObject>>, rootNamespace: string) {
    const all = [...objects].map(({ object }) => object);
    this.policies = all.map(({ policy }) => policy);
    this.#rootNamespace = rootNamespace;
    for (const object of all) {
      if (object.selector === undefined) continue;
      const others = this.#selecting.get(object.namespace);
      if (others) others.push(object);
      else this.#selecting.set(object.namespace, [object]);
    }
  }

  /** Those that select by label, in order of their keys. One in the root namespace reaches all. */
  policiesFor(namespace: string, labels: Labels): readonly PolicyKey[] {
    return [...new Set([this.#rootNamespace, namespace])]
      .flatMap((from) => this.#selecting.get(from) ?? [])
      .filter(({ selector }) => selector && selects(selector, labels))
      .map(({ policy }) => policy.key)
      .sort();
  }
}
