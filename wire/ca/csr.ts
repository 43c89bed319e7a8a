import type { SpiffeId } from "#core/spiffe-id.ts";

export interface KeyAndCsr {
  /** PKCS#8 in PEM. Never leaves the process that made it. */
  readonly keyPem: string;
  readonly csrPem: string;
}

/** A fresh P-256 key, and a request for `identity`: empty subject, one critical URI SAN. */
export async function createCsr(_identity: SpiffeId): Promise<KeyAndCsr> {
  throw new TypeError("not written yet");
}
