import { type KeyObject, randomBytes, webcrypto } from "node:crypto";

/** How a key signs. One word for the key and the signature, as WebCrypto wants it. */
export interface SigningAlgorithm {
  readonly name: string;
  readonly namedCurve?: string;
  readonly hash: string;
}

/** What WebCrypto calls the curves that OpenSSL calls otherwise, and the hash that fits them. */
const CURVES: Readonly<Record<string, SigningAlgorithm>> = {
  prime256v1: { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" },
  secp384r1: { name: "ECDSA", namedCurve: "P-384", hash: "SHA-384" },
};

const RSA_BITS = { min: 2_048, max: 8_192 } as const;

/**
 * How a key of the mesh signs.
 *
 * @throws RangeError unless it is P-256, P-384 or RSA from 2048 bits (to 8192: checking a signature
 *   must stay cheap)
 */
export function algorithmOf({
  asymmetricKeyType,
  asymmetricKeyDetails,
}: KeyObject): SigningAlgorithm {
  if (asymmetricKeyType === "ec") {
    const curve = asymmetricKeyDetails?.namedCurve ?? "unnamed";
    const algorithm = CURVES[curve];
    if (algorithm) return algorithm;
    throw new RangeError(`key is on curve ${curve}, want P-256 or P-384`);
  }
  if (asymmetricKeyType === "rsa") {
    const bits = asymmetricKeyDetails?.modulusLength ?? 0;
    if (bits >= RSA_BITS.min && bits <= RSA_BITS.max) {
      return { name: "RSASSA-PKCS1-v1_5", hash: "SHA-256" };
    }
    throw new RangeError(`RSA key has ${bits} bits, want ${RSA_BITS.min} to ${RSA_BITS.max}`);
  }
  throw new RangeError(`key is of type ${asymmetricKeyType}, want P-256, P-384 or RSA`);
}

/** 126 random bits, positive and in hex (RFC 5280, 4.1.2.2 allows 159). */
export function newSerialNumber(): string {
  const bytes = randomBytes(16);
  // A first byte from 0x40 to 0x7f: neither a sign nor a leading zero that an encoder could cut.
  bytes[0] = ((bytes[0] ?? 0) & 0x3f) | 0x40;
  return bytes.toString("hex");
}

/** The key as WebCrypto takes it, for @peculiar/x509. */
export async function signingKeyOf(key: KeyObject): Promise<webcrypto.CryptoKey> {
  const pkcs8 = key.export({ type: "pkcs8", format: "der" });
  return await webcrypto.subtle.importKey("pkcs8", pkcs8, algorithmOf(key), false, ["sign"]);
}
