/**
 * The certificate authority's own key and certificates: given by the operator, or made at first
 * start. The files have the names that Istio gives to a plugged-in CA.
 *
 * @see https://istio.io/latest/docs/tasks/security/cert-management/plugin-ca-cert/
 */
// @peculiar/x509 asks for this polyfill to be loaded before it.
import "reflect-metadata";
import { createPrivateKey, type KeyObject, webcrypto, X509Certificate } from "node:crypto";
import { join } from "node:path";
import * as x509 from "@peculiar/x509";
import type { Clock } from "#core/clock.ts";
import { MeshError, reasonOf } from "#core/errors.ts";
import { splitCertificates } from "#wire/ca/pem.ts";
import { createFile, preparePrivateDirectory, readOptional, readOptionalKey } from "./files.ts";
import { algorithmOf, newSerialNumber } from "./key.ts";

export interface Authority {
  /** Signs the leafs. */
  readonly certificate: x509.X509Certificate;
  readonly key: KeyObject;
  /** What a leaf's owner shows behind the leaf: from the signing certificate to below the root. */
  readonly intermediatesPem: readonly string[];
  /** What everybody in the mesh trusts. */
  readonly rootsPem: readonly string[];
}

export interface AuthorityOptions {
  readonly directory: string;
  readonly trustDomain: string;
  readonly clock: Clock;
}

export const ROOT_CERTIFICATE_FILE = "root-cert.pem";
const CERTIFICATE_FILE = "ca-cert.pem";
const KEY_FILE = "ca-key.pem";
const CHAIN_FILE = "cert-chain.pem";

const DAY_MS = 24 * 60 * 60 * 1_000;
const ROOT_LIFETIME_MS = 3_650 * DAY_MS;
/** Nodes whose clocks are a little behind have to accept what was made just now. */
const CLOCK_SKEW_MS = 2 * 60 * 1_000;

/**
 * Opens the authority of a directory, and makes it where the directory has none.
 *
 * @throws MeshError `SETTINGS_INVALID` where its files are incomplete, do not fit together, or can
 *   be read by others
 */
export async function openAuthority(options: AuthorityOptions): Promise<Authority> {
  const { directory, clock } = options;
  await preparePrivateDirectory(directory);
  const key = await readOptionalKey(join(directory, KEY_FILE));
  const certificate = await readOptional(join(directory, CERTIFICATE_FILE));
  if (key === undefined && certificate === undefined) await createAuthority(options);
  else if (key === undefined || certificate === undefined) {
    const [found, missing] =
      key === undefined ? [CERTIFICATE_FILE, KEY_FILE] : [KEY_FILE, CERTIFICATE_FILE];
    const hint = "give both, or remove it and have a new authority made";
    throw invalid(directory, `"${found}" is there and "${missing}" is not: ${hint}`);
  }
  return await loadAuthority(directory, clock.nowMs());
}

async function createAuthority({ directory, trustDomain, clock }: AuthorityOptions): Promise<void> {
  const algorithm = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" };
  const keys = await webcrypto.subtle.generateKey(algorithm, true, ["sign", "verify"]);
  const nowMs = clock.nowMs();
  const certificate = await x509.X509CertificateGenerator.createSelfSigned(
    {
      serialNumber: newSerialNumber(),
      name: [{ O: [trustDomain] }, { CN: ["Aquifer root"] }],
      notBefore: new Date(nowMs - CLOCK_SKEW_MS),
      notAfter: new Date(nowMs + ROOT_LIFETIME_MS),
      signingAlgorithm: algorithm,
      keys,
      extensions: [
        new x509.BasicConstraintsExtension(true, undefined, true),
        new x509.KeyUsagesExtension(
          x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign,
          true,
        ),
        await x509.SubjectKeyIdentifierExtension.create(keys.publicKey, false, webcrypto),
      ],
    },
    webcrypto,
  );
  const pem = `${certificate.toString("pem")}\n`;
  const pkcs8 = await webcrypto.subtle.exportKey("pkcs8", keys.privateKey);
  const keyPem = `${x509.PemConverter.encode(pkcs8, "PRIVATE KEY")}\n`;
  // The key decides which of two processes that start at once is the one that makes the authority.
  if (!(await createFile(join(directory, KEY_FILE), keyPem, 0o600))) {
    throw invalid(directory, "another process is making one there");
  }
  await createFile(join(directory, ROOT_CERTIFICATE_FILE), pem, 0o644);
  await createFile(join(directory, CHAIN_FILE), pem, 0o644);
  await createFile(join(directory, CERTIFICATE_FILE), pem, 0o644);
}

async function loadAuthority(directory: string, nowMs: number): Promise<Authority> {
  const read = async (file: string) => (await readOptional(join(directory, file))) ?? "";
  const [certificatePem = "", ...others] = splitCertificates(await read(CERTIFICATE_FILE));
  const rootsPem = splitCertificates(await read(ROOT_CERTIFICATE_FILE));
  const chainPem = splitCertificates(await read(CHAIN_FILE));
  if (certificatePem === "") throw invalid(directory, `"${CERTIFICATE_FILE}" has no certificate`);
  if (rootsPem.length === 0) throw invalid(directory, `"${ROOT_CERTIFICATE_FILE}" has none`);
  try {
    const key = createPrivateKey((await readOptionalKey(join(directory, KEY_FILE))) ?? "");
    const signing = new X509Certificate(certificatePem);
    const roots = rootsPem.map((pem) => new X509Certificate(pem));
    checkSigning(signing, key, nowMs);
    const chain = [...others, ...chainPem].map((pem) => new X509Certificate(pem));
    const intermediates = pathToRoot(signing, chain, roots);
    return {
      certificate: new x509.X509Certificate(certificatePem),
      key,
      intermediatesPem: intermediates.map((certificate) => certificate.toString()),
      rootsPem,
    };
  } catch (error) {
    throw invalid(directory, reasonOf(error));
  }
}

function checkSigning(signing: X509Certificate, key: KeyObject, nowMs: number): void {
  if (!signing.checkPrivateKey(key)) throw new RangeError(`"${KEY_FILE}" is of another key`);
  if (!signing.ca) throw new RangeError(`"${CERTIFICATE_FILE}" may not sign certificates`);
  if (signing.validToDate.getTime() <= nowMs) {
    throw new RangeError(`"${CERTIFICATE_FILE}" expired on ${signing.validTo}`);
  }
  algorithmOf(key);
}

/** From the signing certificate upwards, without the root; empty where it is the root itself. */
function pathToRoot(
  signing: X509Certificate,
  chain: readonly X509Certificate[],
  roots: readonly X509Certificate[],
): X509Certificate[] {
  const isRoot = (one: X509Certificate) => roots.some(({ raw }) => raw.equals(one.raw));
  const path: X509Certificate[] = [];
  // Each step takes another certificate, so that a chain in a circle ends too.
  for (let current: X509Certificate | undefined = signing; current && !isRoot(current); ) {
    const child: X509Certificate = current;
    path.push(child);
    if (roots.some((root) => isIssuer(root, child))) return path;
    current = chain.find((parent) => !path.includes(parent) && isIssuer(parent, child));
    if (!current) {
      throw new RangeError(`"${CERTIFICATE_FILE}" and "${CHAIN_FILE}" do not lead to a root`);
    }
  }
  return path;
}

function isIssuer(parent: X509Certificate, child: X509Certificate): boolean {
  return child.checkIssued(parent) && child.verify(parent.publicKey);
}

function invalid(directory: string, reason: string): MeshError {
  return new MeshError("SETTINGS_INVALID", `Cannot use the CA in "${directory}": ${reason}`);
}
