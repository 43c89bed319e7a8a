/**
 * What a client holds of each type, by resource name and version, and what one response does to it:
 * the client's half of delta xDS, without the stream.
 *
 * Workloads and services share one space of names, so that a removal does not say of which it is;
 * this remembers.
 */
import { setImmediate } from "node:timers/promises";
import { MeshError, reasonOf } from "#core/errors.ts";
import type { Policy } from "#core/policy/policy.ts";
import type { Service } from "#core/service/service.ts";
import type { PolicyKey, ServiceKey, Workload, WorkloadUid } from "#core/service/workload.ts";
import type { DeltaDiscoveryResponse, Resource } from "#wire/gen/discovery_pb.js";
import type { DiscoveryUpdate, Rejection } from "./client.ts";
import { decodeAddress } from "./decode.ts";
import { decodeAuthorization, standInFor } from "./decode-policy.ts";
import {
  ADDRESS_TYPE,
  AUTHORIZATION_TYPE,
  type DiscoveryType,
  isDiscoveryType,
} from "./type-urls.ts";

export interface Applied {
  readonly update: DiscoveryUpdate;
  readonly rejections: readonly Rejection[];
}

type Item =
  | { readonly kind: "workload"; readonly key: WorkloadUid; readonly workload: Workload }
  | { readonly kind: "service"; readonly key: ServiceKey; readonly service: Service }
  | { readonly kind: "policy"; readonly key: PolicyKey; readonly policy: Policy };

type Held =
  | { readonly kind: "workload"; readonly key: WorkloadUid; readonly version: string }
  | { readonly kind: "service"; readonly key: ServiceKey; readonly version: string }
  | { readonly kind: "policy"; readonly key: PolicyKey; readonly version: string };

/** Decoding a whole mesh takes seconds; connections must not wait for it longer than this. */
const SLICE_MS = 8;

/** Stands where a refused policy has a stand-in: no server has this version, so it sends again. */
const REFUSED_VERSION = "refused";

export class ReceivedState {
  readonly #held: Readonly<Record<DiscoveryType, Map<string, Held>>> = {
    [ADDRESS_TYPE]: new Map(),
    [AUTHORIZATION_TYPE]: new Map(),
  };

  /** For the first request on a new stream: the server sends what is not in it, or has changed. */
  initialVersions(typeUrl: DiscoveryType): Record<string, string> {
    return Object.fromEntries(
      [...this.#held[typeUrl]].map(([name, { version }]) => [name, version]),
    );
  }

  /** One response at a time: the next may only be applied when this one is. */
  async apply({ typeUrl, resources, removedResources }: DeltaDiscoveryResponse): Promise<Applied> {
    const batch = new Batch();
    if (!isDiscoveryType(typeUrl)) {
      const reason = "Cannot use the response: its type was not asked for";
      return { update: batch.update(), rejections: [{ typeUrl, name: "*", reason }] };
    }
    for (const name of removedResources) this.#remove(typeUrl, name, batch);
    const rejections: Rejection[] = [];
    let sliceEndMs = performance.now() + SLICE_MS;
    for (const resource of resources) {
      const reason = this.#accept(typeUrl, resource, batch);
      if (reason !== undefined) rejections.push({ typeUrl, name: resource.name, reason });
      if (performance.now() < sliceEndMs) continue;
      await setImmediate();
      sliceEndMs = performance.now() + SLICE_MS;
    }
    return { update: batch.update(), rejections };
  }

  /** @returns the reason for which the resource is rejected, if it is */
  #accept(typeUrl: DiscoveryType, resource: Resource, batch: Batch): string | undefined {
    const { name, version } = resource;
    try {
      const item = decodeResource(typeUrl, resource);
      // Under another name it could not be removed again.
      if (item.key !== name) return `Cannot read "${name}": it calls itself "${item.key}"`;
      const before = this.#held[typeUrl].get(name);
      if (before && before.kind !== item.kind) batch.remove(before);
      this.#held[typeUrl].set(name, heldOf(item, version));
      batch.change(item);
      return undefined;
    } catch (error) {
      if (!(error instanceof MeshError)) throw error;
      if (typeUrl === AUTHORIZATION_TYPE) this.#standIn(resource, batch);
      return reasonOf(error);
    }
  }

  /**
   * A policy that is not understood keeps its last good version in force. Where there was none, it
   * fails closed: left out, a deny would be an open door.
   */
  #standIn({ name, resource }: Resource, batch: Batch): void {
    const held = this.#held[AUTHORIZATION_TYPE];
    const policy = !held.has(name) && resource ? standInFor(resource.value) : undefined;
    if (policy?.key !== name) return;
    const item: Item = { kind: "policy", key: policy.key, policy };
    held.set(name, heldOf(item, REFUSED_VERSION));
    batch.change(item);
  }

  #remove(typeUrl: DiscoveryType, name: string, batch: Batch): void {
    const held = this.#held[typeUrl].get(name);
    if (!held) return; // It was rejected when it came, or removed on an earlier stream.
    this.#held[typeUrl].delete(name);
    batch.remove(held);
  }
}

/** What one response changes. Of two changes to one thing the later counts. */
class Batch {
  readonly #workloads = new Map<WorkloadUid, Workload | undefined>();
  readonly #services = new Map<ServiceKey, Service | undefined>();
  readonly #policies = new Map<PolicyKey, Policy | undefined>();

  change(item: Item): void {
    switch (item.kind) {
      case "workload":
        this.#workloads.set(item.key, item.workload);
        break;
      case "service":
        this.#services.set(item.key, item.service);
        break;
      case "policy":
        this.#policies.set(item.key, item.policy);
        break;
    }
  }

  remove(held: Held): void {
    switch (held.kind) {
      case "workload":
        this.#workloads.set(held.key, undefined);
        break;
      case "service":
        this.#services.set(held.key, undefined);
        break;
      case "policy":
        this.#policies.set(held.key, undefined);
        break;
    }
  }

  update(): DiscoveryUpdate {
    return {
      workloads: splitChanges(this.#workloads),
      services: splitChanges(this.#services),
      policies: splitChanges(this.#policies),
    };
  }
}

function splitChanges<Key, Value>(changes: ReadonlyMap<Key, Value | undefined>) {
  const entries = [...changes];
  return {
    changed: entries.flatMap(([, value]) => (value === undefined ? [] : [value])),
    removed: entries.flatMap(([key, value]) => (value === undefined ? [key] : [])),
  };
}

function decodeResource(typeUrl: DiscoveryType, { name, resource }: Resource): Item {
  if (resource?.typeUrl !== typeUrl) {
    const reason = `expected a "${typeUrl}", not "${resource?.typeUrl ?? "nothing"}"`;
    throw new MeshError("RESOURCE_INVALID", `Cannot read "${name}": ${reason}`);
  }
  if (typeUrl === ADDRESS_TYPE) return decodeAddress(name, resource.value);
  const policy = decodeAuthorization(name, resource.value);
  return { kind: "policy", key: policy.key, policy };
}

function heldOf(item: Item, version: string): Held {
  switch (item.kind) {
    case "workload":
      return { kind: item.kind, key: item.key, version };
    case "service":
      return { kind: item.kind, key: item.key, version };
    case "policy":
      return { kind: item.kind, key: item.key, version };
  }
}
