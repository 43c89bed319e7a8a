/** Who may have a certificate for whom. */
import { partsOfSpiffeId, type SpiffeId, spiffeIdOf } from "#core/spiffe-id.ts";
import type { Caller } from "#wire/xds/caller.ts";
import type { PlacementSource } from "../index/types.ts";

export type Attestation =
  | { readonly kind: "confirmed"; readonly identity: SpiffeId }
  | { readonly kind: "refused"; readonly reason: string };

export interface AttestationRules {
  readonly trustDomain: string;
  readonly placement: PlacementSource;
}

/**
 * Whether `caller` may have a certificate for `impersonated`.
 *
 * A node may have those of the pods that run on it, and no others: one that was broken into can
 * then speak for its own pods, which it could anyway, and for nobody else.
 *
 * @param impersonated  as the caller wrote it; undefined where it asks for itself
 */
export function attest(
  { node }: Caller,
  impersonated: string | undefined,
  { trustDomain, placement }: AttestationRules,
): Attestation {
  const refuse = (reason: string): Attestation => ({
    kind: "refused",
    reason: `request impersonation authentication failure: node "${node}" ${reason}`,
  });
  if (impersonated === undefined) return refuse("has no identity of its own, and named no other");
  const identity = spiffeIdOf(impersonated);
  if (identity === undefined)
    return refuse(`asked for "${cut(impersonated)}", which is no identity`);
  const { namespace, serviceAccount, ...rest } = partsOfSpiffeId(identity);
  if (rest.trustDomain !== trustDomain) {
    return refuse(`asked for "${identity}", and the trust domain here is "${trustDomain}"`);
  }
  const hasPod = placement
    .podsOnNode(node)
    .some((pod) => pod.namespace === namespace && pod.serviceAccount === serviceAccount);
  return hasPod
    ? { kind: "confirmed", identity }
    : refuse(`asked for "${identity}", and runs no pod with that service account`);
}

/** As much of a stranger's text as a log line needs. */
function cut(text: string): string {
  return text.length <= 200 ? text : `${text.slice(0, 200)}…`;
}
