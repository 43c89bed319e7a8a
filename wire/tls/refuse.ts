/** Judgements on the URIs in a certificate whose chain holds. */
import { partsOfSpiffeId, type SpiffeId, spiffeIdOf } from "#core/spiffe-id.ts";

type RefusePeer = (uris: readonly string[]) => string | undefined;

/**
 * Refuses a peer without an identity in this trust domain.
 *
 * One is enough. There are no aliases of trust domains, as in Istio's ztunnel.
 */
export function refusePeerOutside(trustDomain: string): RefusePeer {
  return (uris) => {
    const ids = identitiesOf(uris);
    if (ids.some((id) => partsOfSpiffeId(id).trustDomain === trustDomain)) return undefined;
    return `its identity is ${listOf(ids)}, expected one in trust domain "${trustDomain}"`;
  };
}

/** Refuses a peer that is none of these. An empty list refuses everybody. */
export function refusePeerUnlessOneOf(expected: readonly SpiffeId[]): RefusePeer {
  const wanted = new Set(expected);
  return (uris) => {
    const ids = identitiesOf(uris);
    if (ids.some((id) => wanted.has(id))) return undefined;
    return `its identity is ${listOf(ids)}, expected ${listOf(expected)}`;
  };
}

function identitiesOf(uris: readonly string[]): readonly SpiffeId[] {
  return uris.map(spiffeIdOf).filter((id) => id !== undefined);
}

function listOf(ids: readonly SpiffeId[]): string {
  return ids.length === 0 ? "none" : ids.map((id) => `"${id}"`).join(" or ");
}
