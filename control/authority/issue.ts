/** The authority's answer to one request for a certificate. */

import type { Clock } from "#core/clock.ts";
import { MeshError } from "#core/errors.ts";
import type { SigningOutcome, SigningRequest } from "#wire/ca/server.ts";
import { type AttestationRules, attest } from "./attest.ts";
import { checkCsr } from "./check-csr.ts";
import type { Authority } from "./root.ts";
import { signLeaf } from "./sign.ts";

export interface IssuingRules extends AttestationRules {
  readonly authority: Authority;
  readonly clock: Clock;
}

const DAY_SECONDS = 24 * 60 * 60;
const TTL_SECONDS = { default: DAY_SECONDS, max: 90 * DAY_SECONDS } as const;

/** Looks first at who asks and for whom, then at the rest: strangers learn only what they are. */
export async function issueCertificate(
  { caller, csrPem, ttlSeconds, impersonated }: SigningRequest,
  rules: IssuingRules,
): Promise<SigningOutcome> {
  const { authority, clock } = rules;
  const attestation = attest(caller, impersonated, rules);
  if (attestation.kind === "refused") return { kind: "forbidden", reason: attestation.reason };
  // Refused, not cut: who plans with a longer life would find out when it ends.
  if (ttlSeconds < 0n || ttlSeconds > BigInt(TTL_SECONDS.max)) {
    const reason = `a lifetime is from 1 to ${TTL_SECONDS.max} s, not ${ttlSeconds} s`;
    return { kind: "invalid", reason: `Cannot sign for "${attestation.identity}": ${reason}` };
  }
  const { identity } = attestation;
  try {
    const publicKey = await checkCsr(csrPem);
    const ttlMs = 1_000 * (Number(ttlSeconds) || TTL_SECONDS.default);
    const names = [{ kind: "identity", identity } as const];
    const leaf = await signLeaf(authority, { names, publicKey, ttlMs, nowMs: clock.nowMs() });
    return {
      kind: "issued",
      identity,
      serialNumber: leaf.serialNumber,
      notAfterMs: leaf.notAfterMs,
      chainPem: [leaf.certificatePem, ...authority.intermediatesPem],
      rootsPem: authority.rootsPem,
    };
  } catch (error) {
    if (!(error instanceof MeshError) || error.code !== "REQUEST_REFUSED") throw error;
    return { kind: "invalid", reason: error.message };
  }
}
