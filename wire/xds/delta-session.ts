/**
 * What one subscriber was told, and what it has to be told next: the server's half of delta xDS,
 * without the stream.
 *
 * A subscriber knows the catalog but for what is `pending`, so that its memory is bounded by the
 * number of names however slowly it reads, and changes it missed come as one.
 *
 * Order, so that no workload ever names a policy its node does not have:
 *
 *   new and changed policies ──▶ workloads and services ──▶ removals of policies
 */
import { status } from "@grpc/grpc-js";
import type { DeltaDiscoveryRequest } from "#wire/gen/discovery_pb.js";
import type { EncodedResource, ResponseParts } from "./resource.ts";
import {
  ADDRESS_TYPE,
  AUTHORIZATION_TYPE,
  DISCOVERY_TYPES,
  type DiscoveryType,
  isDiscoveryType,
  LEGACY_WORKLOAD_TYPE,
} from "./type-urls.ts";

/** Everything there is to send, by type and name. */
export type Catalog = Readonly<Record<DiscoveryType, ReadonlyMap<string, EncodedResource>>>;

/** For each changed or removed name the version it had, undefined where it is new. */
export type CatalogChange = Readonly<
  Record<DiscoveryType, ReadonlyMap<string, string | undefined>>
>;

/** What a request amounts to. */
export type Accepted =
  | { readonly kind: "subscribed"; readonly typeUrl: DiscoveryType }
  | { readonly kind: "acknowledged" }
  | { readonly kind: "rejected"; readonly typeUrl: DiscoveryType; readonly reason: string }
  /** Nothing to do: a nonce of an earlier stream, or a request that changes nothing. */
  | { readonly kind: "ignored" }
  /** The stream cannot go on. */
  | { readonly kind: "refused"; readonly code: status; readonly reason: string };

interface Subscription {
  /** The version that the subscriber has, of each name for which that may not be the newest. */
  readonly pending: Map<string, string | undefined>;
  /** A first response is owed even where there is nothing to say: clients wait for it. */
  owesFirst: boolean;
  /** Nonces that were sent and not answered, oldest first. */
  readonly unanswered: Set<string>;
}

/** A quarter below what clients take (200 MiB), as room for resources that grow. */
const RESPONSE_BYTES_MAX = 150 * 1024 * 1024;

/** With so many unanswered no more is sent: who cannot keep up gets fewer and larger responses. */
const UNANSWERED_MAX = 16;

export class DeltaSession {
  readonly #catalog: () => Catalog;
  readonly #subscriptions = new Map<DiscoveryType, Subscription>();
  #responses = 0;
  #addressesMayGo = false;

  constructor(catalog: () => Catalog) {
    this.#catalog = catalog;
  }

  accept(request: DeltaDiscoveryRequest): Accepted {
    const { typeUrl } = request;
    if (!isDiscoveryType(typeUrl)) return refusedType(typeUrl);
    if (namesSomething(request)) return REFUSED_NAMES;
    const subscription = this.#subscriptions.get(typeUrl);
    if (!subscription) return this.#subscribe(typeUrl, request);
    if (request.resourceNamesUnsubscribe.includes("*")) {
      this.#subscriptions.delete(typeUrl);
      return { kind: "ignored" };
    }
    return answer(typeUrl, subscription, request);
  }

  /** The catalog was changed. */
  changed(change: CatalogChange): void {
    for (const [typeUrl, { pending }] of this.#subscriptions) {
      for (const [name, version] of change[typeUrl]) {
        if (!pending.has(name)) pending.set(name, version);
      }
    }
  }

  /** Whether addresses are held back until the policies they name are asked for and sent. */
  get holdsAddresses(): boolean {
    return (
      this.#subscriptions.has(ADDRESS_TYPE) &&
      !this.#subscriptions.has(AUTHORIZATION_TYPE) &&
      !this.#addressesMayGo
    );
  }

  /** Ends that wait: the subscriber seems to have no interest in policies. */
  releaseAddresses(): void {
    this.#addressesMayGo = true;
  }

  /** What to send now, undefined where there is nothing, or where answers are missing. */
  next(): ResponseParts | undefined {
    const authorizations = this.#subscriptions.get(AUTHORIZATION_TYPE);
    const addresses = this.#subscriptions.get(ADDRESS_TYPE);
    if (authorizations && waitsForAnswers(authorizations)) return undefined;
    return (
      this.#nextOf(AUTHORIZATION_TYPE, authorizations, addresses ? "changes" : "all") ??
      (this.holdsAddresses ? undefined : this.#nextOf(ADDRESS_TYPE, addresses, "all")) ??
      this.#nextOf(AUTHORIZATION_TYPE, isEmpty(addresses) ? authorizations : undefined, "all")
    );
  }

  /** Whether the subscriber has asked for both types, and has answered all there is of them. */
  get isCurrent(): boolean {
    return DISCOVERY_TYPES.every((typeUrl) => {
      const subscription = this.#subscriptions.get(typeUrl);
      return subscription && isEmpty(subscription) && subscription.unanswered.size === 0;
    });
  }

  /** Whether there is something to send that only waits for answers. */
  get isStalled(): boolean {
    return [...this.#subscriptions.values()].some(waitsForAnswers);
  }

  #subscribe(typeUrl: DiscoveryType, request: DeltaDiscoveryRequest): Accepted {
    if (request.resourceNamesUnsubscribe.length > 0) return REFUSED_NAMES;
    const held = new Map(Object.entries(request.initialResourceVersions));
    const pending = new Map<string, string | undefined>(held);
    for (const { name, version } of this.#catalog()[typeUrl].values()) {
      if (held.get(name) === version) pending.delete(name);
      else pending.set(name, held.get(name));
    }
    this.#subscriptions.set(typeUrl, { pending, owesFirst: true, unanswered: new Set() });
    return { kind: "subscribed", typeUrl };
  }

  #nextOf(
    typeUrl: DiscoveryType,
    subscription: Subscription | undefined,
    which: "changes" | "all",
  ): ResponseParts | undefined {
    if (!subscription || waitsForAnswers(subscription)) return undefined;
    const taken = take(subscription.pending, this.#catalog()[typeUrl], which);
    if (taken.changed.length + taken.removed.length === 0 && !subscription.owesFirst) {
      return undefined;
    }
    subscription.owesFirst = false;
    this.#responses += 1;
    const nonce = this.#responses.toString(16);
    subscription.unanswered.add(nonce);
    return { typeUrl, nonce, ...taken };
  }
}

/** Moves out of `pending` what fits into one response. */
function take(
  pending: Map<string, string | undefined>,
  entries: ReadonlyMap<string, EncodedResource>,
  which: "changes" | "all",
) {
  const changed: EncodedResource[] = [];
  const removed: string[] = [];
  let bytes = 0;
  for (const [name, heldVersion] of pending) {
    const entry = entries.get(name);
    if (!entry && which === "changes") continue;
    if (bytes + (entry?.bytes.length ?? 0) > RESPONSE_BYTES_MAX && bytes > 0) break;
    pending.delete(name);
    bytes += entry?.bytes.length ?? name.length;
    if (entry && entry.version !== heldVersion) changed.push(entry);
    if (!entry && heldVersion !== undefined) removed.push(name);
  }
  return { changed, removed };
}

function answer(
  typeUrl: DiscoveryType,
  { unanswered }: Subscription,
  { responseNonce, errorDetail }: DeltaDiscoveryRequest,
): Accepted {
  if (!unanswered.has(responseNonce)) return { kind: "ignored" };
  // Answers come in the order of the responses, so earlier ones that have none will get none.
  for (const nonce of unanswered) {
    unanswered.delete(nonce);
    if (nonce === responseNonce) break;
  }
  // What was rejected is not sent again before it changes: the answer would be the same.
  if (errorDetail) return { kind: "rejected", typeUrl, reason: errorDetail.message };
  return { kind: "acknowledged" };
}

function waitsForAnswers({ pending, unanswered }: Subscription): boolean {
  return pending.size > 0 && unanswered.size >= UNANSWERED_MAX;
}

function isEmpty(subscription: Subscription | undefined): boolean {
  return !subscription || (subscription.pending.size === 0 && !subscription.owesFirst);
}

function namesSomething(request: DeltaDiscoveryRequest): boolean {
  const { resourceNamesSubscribe, resourceNamesUnsubscribe } = request;
  return [...resourceNamesSubscribe, ...resourceNamesUnsubscribe].some((name) => name !== "*");
}

const REFUSED_NAMES: Accepted = {
  kind: "refused",
  code: status.INVALID_ARGUMENT,
  reason: "Cannot subscribe to single names: on-demand discovery is not supported, ask for all",
};

function refusedType(typeUrl: string): Accepted {
  const hint = typeUrl === LEGACY_WORKLOAD_TYPE ? `: subscribe to "${ADDRESS_TYPE}" instead` : "";
  return {
    kind: "refused",
    code: status.UNIMPLEMENTED,
    reason: `Cannot serve resources of type "${typeUrl}"${hint}`,
  };
}
