// @peculiar/x509 asks for this polyfill to be loaded before it.
import "reflect-metadata";
import assert from "node:assert/strict";
import { webcrypto, X509Certificate } from "node:crypto";
import { chmod, mkdtemp, readdir, readFile, rm, stat, unlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, it } from "node:test";
import * as x509 from "@peculiar/x509";
import { parseSpiffeId } from "#core/spiffe-id.ts";
import { createCsr } from "#wire/ca/csr.ts";
import { checkCsr } from "./check-csr.ts";
import { openAuthority } from "./root.ts";
import { signLeaf } from "./sign.ts";

const NOW_MS = Date.UTC(2026, 10, 21, 12);
const IDENTITY = parseSpiffeId("spiffe://cluster.local/ns/shop/sa/cart");

const RSA = {
  name: "RSASSA-PKCS1-v1_5",
  hash: "SHA-256",
  modulusLength: 2_048,
  publicExponent: Uint8Array.of(1, 0, 1),
};
const P384 = { name: "ECDSA", namedCurve: "P-384", hash: "SHA-384" };

interface Given {
  readonly pem: string;
  readonly keyPem: string;
  readonly certificate: x509.X509Certificate;
  readonly privateKey: webcrypto.CryptoKey;
}

async function rsaRoot(): Promise<Given> {
  const keys = await webcrypto.subtle.generateKey(RSA, true, ["sign", "verify"]);
  const name = "O=Some company";
  const validity = { notBefore: new Date(NOW_MS), notAfter: new Date(NOW_MS + 86_400_000) };
  const extensions = [new x509.BasicConstraintsExtension(true, undefined, true)];
  const certificate = await x509.X509CertificateGenerator.createSelfSigned(
    { serialNumber: "01", name, keys, signingAlgorithm: RSA, extensions, ...validity },
    webcrypto,
  );
  return await given(certificate, keys.privateKey);
}

async function intermediateUnder(root: Given, isAuthority = true): Promise<Given> {
  const keys = await webcrypto.subtle.generateKey(P384, true, ["sign", "verify"]);
  const certificate = await x509.X509CertificateGenerator.create(
    {
      serialNumber: "02",
      subject: "O=The mesh of some company",
      issuer: root.certificate.subject,
      notBefore: new Date(NOW_MS),
      notAfter: new Date(NOW_MS + 86_400_000),
      publicKey: keys.publicKey,
      signingKey: root.privateKey,
      signingAlgorithm: RSA,
      extensions: [new x509.BasicConstraintsExtension(isAuthority, undefined, true)],
    },
    webcrypto,
  );
  return await given(certificate, keys.privateKey);
}

async function given(
  certificate: x509.X509Certificate,
  privateKey: webcrypto.CryptoKey,
): Promise<Given> {
  const pkcs8 = await webcrypto.subtle.exportKey("pkcs8", privateKey);
  const keyPem = x509.PemConverter.encode(pkcs8, "PRIVATE KEY");
  return { pem: `${certificate.toString("pem")}\n`, keyPem, certificate, privateKey };
}

describe("openAuthority()", () => {
  let directory: string;
  const open = async (nowMs = NOW_MS) =>
    await openAuthority({ directory, trustDomain: "example.org", clock: { nowMs: () => nowMs } });
  const path = (file: string) => join(directory, file);
  const modeOf = async (file: string) => (await stat(file)).mode & 0o777;
  const give = async (files: Readonly<Record<string, string>>) => {
    for (const [file, text] of Object.entries(files)) {
      await writeFile(path(file), text, { mode: 0o600 });
    }
  };

  beforeEach(async () => {
    directory = join(await mkdtemp(join(tmpdir(), `aquifer-root-${process.pid}-`)), "state");
  });
  afterEach(async () => await rm(join(directory, ".."), { recursive: true }));

  it("makes a root of ten years at first start, for its owner's eyes only", async () => {
    const { rootsPem, intermediatesPem } = await open();
    const root = new X509Certificate(rootsPem[0] ?? "");
    assert.equal(root.ca, true);
    assert.equal(root.subject, "O=example.org\nCN=Aquifer root");
    assert.equal(root.publicKey.asymmetricKeyDetails?.namedCurve, "prime256v1");
    assert.equal(root.validToDate.getTime(), NOW_MS + 3_650 * 86_400_000);
    assert.deepEqual(intermediatesPem, []);
    assert.equal(await modeOf(directory), 0o700);
    assert.equal(await modeOf(path("ca-key.pem")), 0o600);
    const files = ["ca-cert.pem", "ca-key.pem", "cert-chain.pem", "root-cert.pem"];
    assert.deepEqual((await readdir(directory)).toSorted(), files);
  });

  it("is the same at the next start", async () => {
    const first = await open();
    assert.deepEqual((await open()).rootsPem, first.rootsPem);
  });

  it("takes an intermediate under an RSA root, with or without the root in its chain", async () => {
    await open();
    const root = await rsaRoot();
    const intermediate = await intermediateUnder(root);
    for (const chain of [intermediate.pem, intermediate.pem + root.pem]) {
      await give({
        "ca-cert.pem": intermediate.pem,
        "ca-key.pem": intermediate.keyPem,
        "root-cert.pem": root.pem,
        "cert-chain.pem": chain,
      });
      const authority = await open();
      assert.deepEqual(authority.intermediatesPem, [intermediate.pem]);
      assert.deepEqual(authority.rootsPem, [root.pem]);
      const publicKey = await checkCsr((await createCsr(IDENTITY)).csrPem);
      const names = [{ kind: "identity", identity: IDENTITY } as const];
      const leaf = await signLeaf(authority, { names, publicKey, ttlMs: 60_000, nowMs: NOW_MS });
      const certificate = new X509Certificate(leaf.certificatePem);
      assert.ok(certificate.checkIssued(new X509Certificate(intermediate.pem)));
      assert.ok(certificate.verify(new X509Certificate(intermediate.pem).publicKey));
    }
  });

  it("trusts all of several roots", async () => {
    const { rootsPem } = await open();
    const other = await rsaRoot();
    await writeFile(path("root-cert.pem"), rootsPem.join("") + other.pem);
    assert.deepEqual((await open()).rootsPem, [...rootsPem, other.pem]);
  });

  it("refuses a key that others can read", async () => {
    await open();
    await chmod(path("ca-key.pem"), 0o644);
    await assert.rejects(open(), {
      code: "SETTINGS_INVALID",
      message: /Cannot use key ".*ca-key.pem": others can read it \(mode 0644, want 0600\)/,
    });
  });

  it("refuses a directory that others can write to", async () => {
    await open();
    await chmod(directory, 0o777);
    await assert.rejects(open(), /others than its owner can write to it \(mode 0777, want 0700\)/);
  });

  it("refuses one half of an authority", async () => {
    await open();
    await unlink(path("ca-cert.pem"));
    await assert.rejects(open(), /"ca-key.pem" is there and "ca-cert.pem" is not/);
    const cert = await readFile(path("root-cert.pem"), "utf8");
    await writeFile(path("ca-cert.pem"), cert);
    await unlink(path("ca-key.pem"));
    await assert.rejects(open(), /"ca-cert.pem" is there and "ca-key.pem" is not/);
  });

  it("refuses files that do not fit together", async () => {
    await open();
    const mine = await readFile(path("ca-key.pem"), "utf8");
    const root = await rsaRoot();
    const leafLike = await intermediateUnder(root, false);
    await give({ "ca-key.pem": root.keyPem });
    await assert.rejects(open(), /"ca-key.pem" is of another key/);
    await give({ "ca-key.pem": mine, "root-cert.pem": root.pem, "cert-chain.pem": "" });
    await assert.rejects(open(), /"ca-cert.pem" and "cert-chain.pem" do not lead to a root/);
    await give({ "ca-cert.pem": leafLike.pem, "ca-key.pem": leafLike.keyPem });
    await assert.rejects(open(), /"ca-cert.pem" may not sign certificates/);
    await give({ "ca-cert.pem": "no certificate at all" });
    await assert.rejects(open(), /"ca-cert.pem" has no certificate/);
  });

  it("refuses an authority that has expired", async () => {
    await open();
    await assert.rejects(open(NOW_MS + 3_651 * 86_400_000), /"ca-cert.pem" expired on/);
  });

  it("never writes a key into a message", async () => {
    await open();
    const garbled = (await readFile(path("ca-key.pem"), "utf8")).replace("A", "B");
    await writeFile(path("ca-key.pem"), garbled.slice(0, -40));
    await assert.rejects(open(), (error: Error) => !error.message.includes(garbled.slice(30, 60)));
  });
});
