/** Leafs: certificates that name a workload, or the control server itself. */
// @peculiar/x509 asks for this polyfill to be loaded before it.
import "reflect-metadata";
import { type KeyObject, webcrypto } from "node:crypto";
import * as x509 from "@peculiar/x509";
import { MeshError } from "#core/errors.ts";
import type { SpiffeId } from "#core/spiffe-id.ts";
import { algorithmOf, newSerialNumber, signingKeyOf } from "./key.ts";
import type { Authority } from "./root.ts";

/** Whom a leaf is for. */
export type LeafName =
  | { readonly kind: "identity"; readonly identity: SpiffeId }
  | { readonly kind: "dns"; readonly name: string }
  | { readonly kind: "ip"; readonly name: string };

export interface LeafRequest {
  /** At least one. */
  readonly names: readonly LeafName[];
  readonly publicKey: KeyObject;
  readonly ttlMs: number;
  readonly nowMs: number;
}

export interface Leaf {
  readonly certificatePem: string;
  /** Upper-case hex, as X509Certificate of node:crypto writes it. */
  readonly serialNumber: string;
  readonly notBeforeMs: number;
  readonly notAfterMs: number;
}

/** Nodes whose clocks are a little behind have to accept what was signed just now. */
const CLOCK_SKEW_MS = 2 * 60 * 1_000;

/**
 * Signs a leaf: empty subject, critical names, for both ends of a connection.
 *
 * @returns it ends with the authority, where that ends sooner than asked for
 * @throws MeshError `CERTIFICATE_UNAVAILABLE` where the authority itself has expired
 */
export async function signLeaf(authority: Authority, request: LeafRequest): Promise<Leaf> {
  const { names, publicKey, ttlMs, nowMs } = request;
  const { certificate: issuer, key } = authority;
  const issuerEndsMs = issuer.notAfter.getTime();
  if (issuerEndsMs <= nowMs) {
    const reason = `the CA expired on ${issuer.notAfter.toISOString()}`;
    throw new MeshError("CERTIFICATE_UNAVAILABLE", `Cannot sign a certificate: ${reason}`);
  }
  // X.509 has whole seconds only (RFC 5280, 4.1.2.5.1).
  const notBeforeMs = wholeSeconds(nowMs - CLOCK_SKEW_MS);
  const notAfterMs = wholeSeconds(Math.min(nowMs + ttlMs, issuerEndsMs));
  const spki = publicKey.export({ type: "spki", format: "der" });
  const serialNumber = newSerialNumber();
  const leaf = await x509.X509CertificateGenerator.create(
    {
      serialNumber,
      subject: "",
      issuer: issuer.subjectName,
      notBefore: new Date(notBeforeMs),
      notAfter: new Date(notAfterMs),
      publicKey: spki,
      signingKey: await signingKeyOf(key),
      signingAlgorithm: algorithmOf(key),
      extensions: await extensionsOf(names, publicKey, spki, issuer),
    },
    webcrypto,
  );
  return {
    certificatePem: `${leaf.toString("pem")}\n`,
    serialNumber: serialNumber.toUpperCase(),
    notBeforeMs,
    notAfterMs,
  };
}

async function extensionsOf(
  names: readonly LeafName[],
  { asymmetricKeyType }: KeyObject,
  spki: Uint8Array<ArrayBuffer>,
  issuer: x509.X509Certificate,
): Promise<x509.Extension[]> {
  const { digitalSignature, keyEncipherment } = x509.KeyUsageFlags;
  const { serverAuth, clientAuth } = x509.ExtendedKeyUsage;
  const usage = asymmetricKeyType === "rsa" ? digitalSignature | keyEncipherment : digitalSignature;
  const issuerKeyId = issuer.getExtension(x509.SubjectKeyIdentifierExtension)?.keyId;
  return [
    new x509.BasicConstraintsExtension(false, undefined, true),
    new x509.KeyUsagesExtension(usage, true),
    new x509.ExtendedKeyUsageExtension([serverAuth, clientAuth]),
    // Critical, since the subject is empty (RFC 5280, 4.2.1.6).
    new x509.SubjectAlternativeNameExtension(names.map(generalName), true),
    await x509.SubjectKeyIdentifierExtension.create(spki, false, webcrypto),
    ...(issuerKeyId === undefined ? [] : [new x509.AuthorityKeyIdentifierExtension(issuerKeyId)]),
  ];
}

function generalName(name: LeafName): x509.JsonGeneralName {
  switch (name.kind) {
    case "identity":
      return { type: "url", value: name.identity };
    case "dns":
      return { type: "dns", value: name.name };
    case "ip":
      return { type: "ip", value: name.name };
  }
}

function wholeSeconds(moment: number): number {
  return Math.floor(moment / 1_000) * 1_000;
}
