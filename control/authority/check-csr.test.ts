// @peculiar/x509 asks for this polyfill to be loaded before it.
import "reflect-metadata";
import assert from "node:assert/strict";
import { webcrypto } from "node:crypto";
import { describe, it } from "node:test";
import * as x509 from "@peculiar/x509";
import fc from "fast-check";
import { MeshError } from "#core/errors.ts";
import { parseSpiffeId } from "#core/spiffe-id.ts";
import { createCsr } from "#wire/ca/csr.ts";
import { checkCsr } from "./check-csr.ts";

const EXPONENT = Uint8Array.of(1, 0, 1);
const rsa = (modulusLength: number) =>
  ({
    name: "RSASSA-PKCS1-v1_5",
    hash: "SHA-256",
    modulusLength,
    publicExponent: EXPONENT,
  }) as const;
const curve = (namedCurve: string, hash: string) => ({ name: "ECDSA", namedCurve, hash }) as const;
type Algorithm = ReturnType<typeof rsa> | ReturnType<typeof curve> | { readonly name: "Ed25519" };

async function csrWith(algorithm: Algorithm): Promise<string> {
  const keys = await webcrypto.subtle.generateKey(algorithm, true, ["sign", "verify"]);
  const params = { name: "", keys: keys as webcrypto.CryptoKeyPair, signingAlgorithm: algorithm };
  return (await x509.Pkcs10CertificateRequestGenerator.create(params, webcrypto)).toString("pem");
}

function refusal(pattern: RegExp) {
  return (error: unknown) => {
    assert.ok(error instanceof MeshError);
    assert.equal(error.code, "REQUEST_REFUSED");
    assert.match(error.message, pattern);
    return true;
  };
}

describe("checkCsr()", () => {
  for (const algorithm of [curve("P-256", "SHA-256"), curve("P-384", "SHA-384"), rsa(2_048)]) {
    it(`takes ${JSON.stringify(algorithm)}`, async () => {
      assert.equal((await checkCsr(await csrWith(algorithm))).type, "public");
    });
  }

  it("takes what createCsr() makes", async () => {
    const { csrPem } = await createCsr(parseSpiffeId("spiffe://cluster.local/ns/shop/sa/cart"));
    assert.equal((await checkCsr(csrPem)).asymmetricKeyDetails?.namedCurve, "prime256v1");
  });

  const weak: readonly (readonly [Algorithm, RegExp])[] = [
    [rsa(1_024), /RSA key has 1024 bits, want 2048 to 8192/],
    [curve("P-521", "SHA-512"), /key is on curve secp521r1, want P-256 or P-384/],
    [{ name: "Ed25519" }, /key is of type ed25519, want P-256, P-384 or RSA/],
  ];
  for (const [algorithm, pattern] of weak) {
    it(`refuses ${JSON.stringify(algorithm)}`, async () => {
      await assert.rejects(checkCsr(await csrWith(algorithm)), refusal(pattern));
    });
  }

  it("refuses a request that was signed by another key than its own", async () => {
    const [mine, other] = await Promise.all([
      csrWith(curve("P-256", "SHA-256")),
      csrWith(curve("P-256", "SHA-256")),
    ]);
    // The signature is the end of both; between requests of one form it fits in length.
    const mineDer = Buffer.from(x509.PemConverter.decodeFirst(mine));
    const otherDer = Buffer.from(x509.PemConverter.decodeFirst(other));
    const keyAt = mineDer.indexOf(Buffer.from([0x03, 0x42, 0x00, 0x04]));
    const forged = Buffer.from(mineDer);
    otherDer.copy(forged, keyAt, keyAt, keyAt + 68);
    const pem = x509.PemConverter.encode(forged, "CERTIFICATE REQUEST");
    await assert.rejects(checkCsr(pem), refusal(/its signature is not by its key/));
  });

  it("refuses what is no request, is two, or is too long", async () => {
    const csr = await csrWith(curve("P-256", "SHA-256"));
    await assert.rejects(checkCsr(""), refusal(/expected one PEM block/));
    await assert.rejects(checkCsr(`${csr}\n${csr}`), refusal(/expected one PEM block/));
    await assert.rejects(checkCsr("x".repeat(20_000)), refusal(/it is too long/));
  });

  // What is not signed may be damaged: the form in which the algorithm of the signature is written.
  it("refuses a damaged request by name, or finds the key that it was made with", async () => {
    const csr = await csrWith(curve("P-256", "SHA-256"));
    const der = Buffer.from(x509.PemConverter.decodeFirst(csr));
    const key = await checkCsr(csr);
    const damage = fc.array(fc.tuple(fc.nat(der.length - 1), fc.integer({ min: 1, max: 255 })), {
      minLength: 1,
      maxLength: 3,
    });
    await fc.assert(
      fc.asyncProperty(damage, async (changes) => {
        const damaged = Buffer.from(der);
        for (const [index, bits] of changes) damaged[index] = (damaged[index] ?? 0) ^ bits;
        const pem = x509.PemConverter.encode(damaged, "CERTIFICATE REQUEST");
        await checkCsr(pem).then(
          (found) => assert.ok(found.equals(key)),
          refusal(/^Cannot sign the request: /),
        );
      }),
      { numRuns: 300 },
    );
  });
});
