// @peculiar/x509 asks for this polyfill to be loaded before it.
import "reflect-metadata";
import { webcrypto } from "node:crypto";
import * as x509 from "@peculiar/x509";
import type { SpiffeId } from "#core/spiffe-id.ts";

export interface KeyAndCsr {
  /** PKCS#8 in PEM. Never leaves the process that made it. */
  readonly keyPem: string;
  readonly csrPem: string;
}

const P256 = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" };

/** A fresh P-256 key, and a request for `identity`: empty subject, one critical URI SAN. */
export async function createCsr(identity: SpiffeId): Promise<KeyAndCsr> {
  const keys = await webcrypto.subtle.generateKey(P256, true, ["sign", "verify"]);
  const names = new x509.SubjectAlternativeNameExtension([{ type: "url", value: identity }], true);
  const csr = await x509.Pkcs10CertificateRequestGenerator.create(
    { name: "", keys, signingAlgorithm: P256, extensions: [names] },
    webcrypto,
  );
  const key = await webcrypto.subtle.exportKey("pkcs8", keys.privateKey);
  return {
    keyPem: `${x509.PemConverter.encode(key, "PRIVATE KEY")}\n`,
    csrPem: `${csr.toString("pem")}\n`,
  };
}

/** The public key that a request is about, as a SubjectPublicKeyInfo in DER. */
export function publicKeyOfCsr(csrPem: string): Uint8Array {
  return new Uint8Array(new x509.Pkcs10CertificateRequest(csrPem).publicKey.rawData);
}
