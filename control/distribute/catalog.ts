/** The newest snapshot as subscribers get it: every thing encoded once, when it changes. */
import { reasonOf } from "#core/errors.ts";
import { type Difference, difference, EMPTY_SNAPSHOT, type Snapshot } from "#core/snapshot.ts";
import type { Catalog, CatalogChange } from "#wire/xds/delta-session.ts";
import {
  encodeAuthorization,
  encodeServiceAddress,
  encodeWorkloadAddress,
} from "#wire/xds/encode.ts";
import { type EncodedResource, encodeResource } from "#wire/xds/resource.ts";
import { ADDRESS_TYPE, AUTHORIZATION_TYPE, type DiscoveryType } from "#wire/xds/type-urls.ts";

/** A thing that cannot be sent: a mistake of ours. What nodes have of it stays. */
export interface CatalogEvent {
  readonly kind: "notEncoded";
  readonly typeUrl: DiscoveryType;
  readonly name: string;
  readonly reason: string;
}

export class SnapshotCatalog {
  readonly #onEvent: (event: CatalogEvent) => void;
  readonly #entries = {
    [ADDRESS_TYPE]: new Map<string, EncodedResource>(),
    [AUTHORIZATION_TYPE]: new Map<string, EncodedResource>(),
  };
  #snapshot: Snapshot = EMPTY_SNAPSHOT;

  constructor(onEvent: (event: CatalogEvent) => void) {
    this.#onEvent = onEvent;
  }

  get catalog(): Catalog {
    return this.#entries;
  }

  /** @returns what is other than before; a thing whose content is the same is not in it */
  update(next: Snapshot): CatalogChange {
    const previous = this.#snapshot;
    this.#snapshot = next;
    const addresses = new Map<string, string | undefined>();
    const policies = new Map<string, string | undefined>();
    const workloads = difference(previous.workloads, next.workloads);
    const services = difference(previous.services, next.services);
    const authorizations = difference(previous.policies, next.policies);
    this.#apply(ADDRESS_TYPE, workloads, ({ uid }) => uid, encodeWorkloadAddress, addresses);
    this.#apply(ADDRESS_TYPE, services, ({ key }) => key, encodeServiceAddress, addresses);
    this.#apply(
      AUTHORIZATION_TYPE,
      authorizations,
      ({ key }) => key,
      encodeAuthorization,
      policies,
    );
    return { [ADDRESS_TYPE]: addresses, [AUTHORIZATION_TYPE]: policies };
  }

  #apply<Key extends string, Value>(
    typeUrl: DiscoveryType,
    { changed, removed }: Difference<Key, Value>,
    nameOf: (value: Value) => Key,
    encode: (value: Value) => Uint8Array,
    change: Map<string, string | undefined>,
  ): void {
    const entries = this.#entries[typeUrl];
    for (const name of removed) {
      const before = entries.get(name);
      if (!before) continue;
      entries.delete(name);
      change.set(name, before.version);
    }
    for (const value of changed) {
      const name = nameOf(value);
      const before = entries.get(name);
      const entry = this.#encode(typeUrl, name, () => encode(value));
      if (!entry || entry.version === before?.version) continue;
      entries.set(name, entry);
      change.set(name, before?.version);
    }
  }

  #encode(
    typeUrl: DiscoveryType,
    name: string,
    encode: () => Uint8Array,
  ): EncodedResource | undefined {
    try {
      return encodeResource(typeUrl, name, encode());
    } catch (error) {
      // One of our own mistakes must not keep all the other things from all the nodes.
      this.#onEvent({ kind: "notEncoded", typeUrl, name, reason: reasonOf(error) });
      return undefined;
    }
  }
}
