import type { Policy } from "#core/policy/policy.ts";
import type { Service } from "#core/service/service.ts";
import type { Workload } from "#core/service/workload.ts";
import { difference, EMPTY_SNAPSHOT, type Snapshot } from "#core/snapshot.ts";
import type { MeshObjects } from "../resources/register.ts";
import type { Problem } from "../source/problem.ts";
import { Memo } from "./memo.ts";
import { PeerAuthentications } from "./peer-authentication.ts";
import { AuthorizationPolicies } from "./policies.ts";
import { type AddressOwners, buildServices } from "./services.ts";
import type { IndexSettings } from "./settings.ts";
import type { PlacedIdentity, PlacementSource, SnapshotSource } from "./types.ts";
import { buildWorkloads, networkOf, placementOf } from "./workloads.ts";

/**
 * All objects in, the mesh as every node should know it out. No I/O and no clock: what comes out
 * depends on the objects alone, and on which of two rivals was there first.
 *
 * Every update looks at all objects, and makes anew only what an object that changed has a part in.
 */
export class MeshIndex implements SnapshotSource, PlacementSource {
  readonly #settings: IndexSettings;
  readonly #listeners = new Set<() => void>();
  readonly #workloads = new Memo<Workload>();
  readonly #services = new Memo<Service>();
  readonly #policies = new Memo<Policy>();
  #snapshot: Snapshot = EMPTY_SNAPSHOT;
  #owners: AddressOwners = new Map();
  #placement: ReadonlyMap<string, readonly PlacedIdentity[]> = new Map();
  #problems: readonly Problem[] = [];

  constructor(settings: IndexSettings) {
    this.#settings = settings;
  }

  /** What is wrong with objects that are right each by itself. */
  get problems(): readonly Problem[] {
    return this.#problems;
  }

  current(): Snapshot {
    return this.#snapshot;
  }

  onChange(listener: () => void): () => void {
    // Two registrations of one function are two.
    const own = () => listener();
    this.#listeners.add(own);
    return () => this.#listeners.delete(own);
  }

  podsOnNode(node: string): readonly PlacedIdentity[] {
    return this.#placement.get(node) ?? [];
  }

  /** Takes over all objects as they are now, and tells the listeners if that makes a difference. */
  update(objects: MeshObjects): void {
    const { rootNamespace } = this.#settings;
    const network = networkOf(objects, this.#settings);
    const services = buildServices(objects.Service.values(), network, this.#owners, this.#services);
    const authorization = new AuthorizationPolicies(
      objects.AuthorizationPolicy.values(),
      rootNamespace,
    );
    const authentication = new PeerAuthentications(
      objects.PeerAuthentication.values(),
      rootNamespace,
    );
    const { workloads, problems } = buildWorkloads(
      {
        objects,
        settings: this.#settings,
        network,
        policiesFor: (namespace, labels) => [
          ...authorization.policiesFor(namespace, labels),
          ...authentication.policiesFor(namespace, labels),
        ],
      },
      this.#workloads,
    );
    const policies = [...authorization.policies, ...authentication.policies].map((policy) =>
      this.#policies.get(policy.key, [policy], () => policy),
    );
    this.#owners = services.owners;
    this.#placement = placementOf(objects.Pod.values());
    this.#problems = [...problems, ...services.problems, ...authentication.problems];
    for (const memo of [this.#workloads, this.#services, this.#policies]) memo.turn();
    this.#publish({
      workloads,
      services: services.services,
      policies: new Map(policies.map((policy) => [policy.key, policy])),
    });
  }

  #publish(next: Snapshot): void {
    const previous = this.#snapshot;
    if (isSame(previous, next)) return;
    this.#snapshot = next;
    for (const listener of [...this.#listeners]) listener();
  }
}

function isSame(a: Snapshot, b: Snapshot): boolean {
  return (
    isSameMap(a.workloads, b.workloads) &&
    isSameMap(a.services, b.services) &&
    isSameMap(a.policies, b.policies)
  );
}

function isSameMap<Key, Value>(a: ReadonlyMap<Key, Value>, b: ReadonlyMap<Key, Value>): boolean {
  const { changed, removed } = difference(a, b);
  return changed.length === 0 && removed.length === 0;
}
