/** Certificates for tests: a root made on the spot, and whatever it is asked to sign. */
import "reflect-metadata";
import { webcrypto } from "node:crypto";
import {
  BasicConstraintsExtension,
  ExtendedKeyUsage,
  ExtendedKeyUsageExtension,
  type Extension,
  KeyUsageFlags,
  KeyUsagesExtension,
  PemConverter,
  SubjectAlternativeNameExtension,
  type X509Certificate,
  X509CertificateGenerator,
} from "@peculiar/x509";

const ALGORITHM = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" } as const;
const HOUR_MS = 3_600_000;

export interface IssueOptions {
  /** Subject alternative names of the kind URI, in this order. */
  readonly uris?: readonly string[];
  readonly dnsNames?: readonly string[];
  /** Milliseconds since the epoch; an hour ago where it is left out. */
  readonly notBeforeMs?: number;
  /** An hour from now where it is left out. */
  readonly notAfterMs?: number;
}

export interface Issued {
  readonly certificatePem: string;
  readonly privateKeyPem: string;
}

/** The fields of `TlsMaterial` in wire/hbone/engine.ts. */
export interface IssuedMaterial {
  readonly certificateChainPem: string;
  readonly privateKeyPem: string;
  readonly rootsPem: string;
}

export class TestAuthority {
  readonly rootPem: string;
  readonly #certificate: X509Certificate;
  readonly #keys: webcrypto.CryptoKeyPair;
  #nextSerial = 1;

  private constructor(certificate: X509Certificate, keys: webcrypto.CryptoKeyPair) {
    this.rootPem = certificate.toString("pem");
    this.#certificate = certificate;
    this.#keys = keys;
  }

  static async create(name = "Test root"): Promise<TestAuthority> {
    const keys = await newKeys();
    const certificate = await X509CertificateGenerator.createSelfSigned({
      serialNumber: "01",
      name: `O=${name}`,
      notBefore: new Date(Date.now() - 2 * HOUR_MS),
      notAfter: new Date(Date.now() + 24 * HOUR_MS),
      signingAlgorithm: ALGORITHM,
      keys,
      extensions: [
        new BasicConstraintsExtension(true, undefined, true),
        new KeyUsagesExtension(KeyUsageFlags.keyCertSign | KeyUsageFlags.cRLSign, true),
      ],
    });
    return new TestAuthority(certificate, keys);
  }

  /** A leaf for both ends of TLS, with an empty subject, as Istio makes them. */
  async issue(options: IssueOptions): Promise<Issued> {
    const keys = await newKeys();
    const names = [
      ...(options.uris ?? []).map((value) => ({ type: "url" as const, value })),
      ...(options.dnsNames ?? []).map((value) => ({ type: "dns" as const, value })),
    ];
    const extensions: Extension[] = [
      new BasicConstraintsExtension(false, undefined, true),
      new KeyUsagesExtension(KeyUsageFlags.digitalSignature, true),
      new ExtendedKeyUsageExtension([ExtendedKeyUsage.serverAuth, ExtendedKeyUsage.clientAuth]),
    ];
    if (names.length > 0) extensions.push(new SubjectAlternativeNameExtension(names, true));
    const certificate = await X509CertificateGenerator.create({
      serialNumber: (++this.#nextSerial).toString(16).padStart(4, "0"),
      subject: "",
      issuer: this.#certificate.subject,
      notBefore: new Date(options.notBeforeMs ?? Date.now() - HOUR_MS),
      notAfter: new Date(options.notAfterMs ?? Date.now() + HOUR_MS),
      signingAlgorithm: ALGORITHM,
      publicKey: keys.publicKey,
      signingKey: this.#keys.privateKey,
      extensions,
    });
    const pkcs8 = await webcrypto.subtle.exportKey("pkcs8", keys.privateKey);
    return {
      certificatePem: certificate.toString("pem"),
      privateKeyPem: PemConverter.encode(pkcs8, "PRIVATE KEY"),
    };
  }

  /** A leaf that trusts its own root. */
  async material(options: IssueOptions): Promise<IssuedMaterial> {
    const { certificatePem, privateKeyPem } = await this.issue(options);
    return { certificateChainPem: certificatePem, privateKeyPem, rootsPem: this.rootPem };
  }
}

async function newKeys(): Promise<webcrypto.CryptoKeyPair> {
  return webcrypto.subtle.generateKey(ALGORITHM, true, ["sign", "verify"]);
}
