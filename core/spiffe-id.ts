import type { Brand } from "./brand.ts";
import { MeshError } from "./errors.ts";

/** `spiffe://<trust domain>/ns/<namespace>/sa/<service account>`: who a workload is. */
export type SpiffeId = Brand<string, "SpiffeId">;

export interface SpiffeIdParts {
  readonly trustDomain: string;
  readonly namespace: string;
  readonly serviceAccount: string;
}

// A trust domain is lower case (SPIFFE-ID, 2.1); the rest are names of Kubernetes objects.
const PATTERN = /^spiffe:\/\/([a-z0-9._-]{1,255})\/ns\/([A-Za-z0-9._-]+)\/sa\/([A-Za-z0-9._-]+)$/;

/** A URI may be no longer than this (SPIFFE-ID, 2.3). */
const LENGTH_MAX = 2048;

/** @throws MeshError `IDENTITY_INVALID` where the path is not exactly `/ns/…/sa/…` */
export function parseSpiffeId(text: string): SpiffeId {
  if (text.length > LENGTH_MAX || !PATTERN.test(text)) {
    const reason = 'expected "spiffe://<trust domain>/ns/<namespace>/sa/<service account>"';
    throw new MeshError("IDENTITY_INVALID", `Cannot read identity "${text}": ${reason}`);
  }
  return text as SpiffeId;
}

/** The identity, or undefined where the text is none. */
export function spiffeIdOf(text: string): SpiffeId | undefined {
  return text.length <= LENGTH_MAX && PATTERN.test(text) ? (text as SpiffeId) : undefined;
}

/**
 * @throws MeshError `IDENTITY_INVALID` where a part has a character that an identity cannot have
 */
export function formatSpiffeId({
  trustDomain,
  namespace,
  serviceAccount,
}: SpiffeIdParts): SpiffeId {
  return parseSpiffeId(`spiffe://${trustDomain}/ns/${namespace}/sa/${serviceAccount}`);
}

/** The inverse of `formatSpiffeId()`. */
export function partsOfSpiffeId(id: SpiffeId): SpiffeIdParts {
  const [, trustDomain, namespace, serviceAccount] = PATTERN.exec(id) ?? [];
  if (trustDomain === undefined || namespace === undefined || serviceAccount === undefined) {
    throw new TypeError(`"${id}" is not an identity`);
  }
  return { trustDomain, namespace, serviceAccount };
}
