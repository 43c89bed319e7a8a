// @peculiar/x509 asks for this polyfill to be loaded before it.
import "reflect-metadata";
import { createPublicKey, type KeyObject, webcrypto } from "node:crypto";
import * as x509 from "@peculiar/x509";
import { MeshError, reasonOf } from "#core/errors.ts";
import { algorithmOf } from "./key.ts";

/** A request with an RSA key of 8192 bits has 3 KiB. */
const CSR_CHARACTERS_MAX = 16 * 1_024;

/**
 * The key that a certificate is asked for, by somebody who has the private half of it.
 *
 * Names and extensions of the request are not looked at: what a certificate says is decided by who
 * asks (attest.ts), not by what he would like.
 *
 * @throws MeshError `REQUEST_REFUSED`
 */
export async function checkCsr(csrPem: string): Promise<KeyObject> {
  try {
    if (csrPem.length > CSR_CHARACTERS_MAX) throw new RangeError("it is too long");
    const [der, ...others] = x509.PemConverter.decode(csrPem);
    if (!der || others.length > 0) throw new SyntaxError("expected one PEM block");
    const csr = new x509.Pkcs10CertificateRequest(der);
    const { rawData } = csr.publicKey;
    const key = createPublicKey({ key: Buffer.from(rawData), format: "der", type: "spki" });
    algorithmOf(key);
    if (!(await csr.verify(webcrypto))) throw new RangeError("its signature is not by its key");
    return key;
  } catch (error) {
    // Parsers of libraries throw all sorts of errors on bytes from outside; each is a refusal.
    throw new MeshError("REQUEST_REFUSED", `Cannot sign the request: ${reasonOf(error)}`);
  }
}
