// @peculiar/x509 asks for this polyfill to be loaded before it.
import "reflect-metadata";
import assert from "node:assert/strict";
import { webcrypto } from "node:crypto";
import { afterEach, before, beforeEach, describe, it } from "node:test";
import { promisify } from "node:util";
import { create } from "@bufbuild/protobuf";
import {
  Metadata,
  Server,
  ServerCredentials,
  type ServerUnaryCall,
  type sendUnaryData,
  status,
} from "@grpc/grpc-js";
import * as x509 from "@peculiar/x509";
import { parseSpiffeId } from "#core/spiffe-id.ts";
import {
  type IstioCertificateRequest,
  type IstioCertificateResponse,
  IstioCertificateResponseSchema,
} from "#wire/gen/ca_pb.js";
import { TestAuthority } from "../../test/support/certificates.ts";
import { CREATE_CERTIFICATE } from "./certificate-method.ts";
import { type CertificateClient, checkedCertificate, createCertificateClient } from "./client.ts";
import { createCsr, type KeyAndCsr, publicKeyOfCsr } from "./csr.ts";

type Call = ServerUnaryCall<IstioCertificateRequest, IstioCertificateResponse>;
type Respond = sendUnaryData<IstioCertificateResponse>;

const CART = parseSpiffeId("spiffe://cluster.local/ns/shop/sa/cart");
const WEB = parseSpiffeId("spiffe://cluster.local/ns/shop/sa/web");
const P256 = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" };
const HOUR_MS = 3_600_000;

/** An issuer that signs for the key of a request, with the names it is told. */
class Issuer {
  readonly pem: string;
  readonly #keys: webcrypto.CryptoKeyPair;
  readonly #name: string;

  private constructor(name: string, pem: string, keys: webcrypto.CryptoKeyPair) {
    this.#name = name;
    this.pem = pem;
    this.#keys = keys;
  }

  static async create(name: string): Promise<Issuer> {
    const keys = await webcrypto.subtle.generateKey(P256, true, ["sign", "verify"]);
    const extensions = [new x509.BasicConstraintsExtension(true, undefined, true)];
    const root = await x509.X509CertificateGenerator.createSelfSigned(
      { serialNumber: "01", name, keys, signingAlgorithm: P256, extensions, ...validity() },
      webcrypto,
    );
    return new Issuer(name, `${root.toString("pem")}\n`, keys);
  }

  async sign(csrPem: string, uris: readonly string[]): Promise<string> {
    const names = uris.map((value) => ({ type: "url", value }) as const);
    const leaf = await x509.X509CertificateGenerator.create(
      {
        serialNumber: "02ab",
        subject: "",
        issuer: this.#name,
        publicKey: Buffer.from(publicKeyOfCsr(csrPem)),
        signingKey: this.#keys.privateKey,
        signingAlgorithm: P256,
        extensions: [new x509.SubjectAlternativeNameExtension(names, true)],
        ...validity(),
      },
      webcrypto,
    );
    return `${leaf.toString("pem")}\n`;
  }
}

function validity() {
  const nowMs = Math.floor(Date.now() / 1_000) * 1_000;
  return { notBefore: new Date(nowMs - HOUR_MS), notAfter: new Date(nowMs + HOUR_MS) };
}

describe("checkedCertificate()", () => {
  let issuer: Issuer;
  let other: Issuer;
  let asked: KeyAndCsr;
  before(async () => {
    [issuer, other] = [await Issuer.create("O=One"), await Issuer.create("O=Other")];
    asked = await createCsr(CART);
  });
  const check = (chain: readonly string[]) => checkedCertificate(chain, CART, asked.csrPem);
  const refused = (reason: RegExp) => ({ code: "CERTIFICATE_REFUSED", message: reason });

  it("takes leaf and roots apart", async () => {
    const leaf = await issuer.sign(asked.csrPem, [CART]);
    const issued = check([leaf, other.pem + issuer.pem]);
    assert.deepEqual(issued.chainPem, [leaf]);
    assert.deepEqual(issued.rootsPem, [other.pem, issuer.pem]);
    assert.equal(issued.serialNumber, "02AB");
    assert.equal(issued.validity.notAfterMs - issued.validity.notBeforeMs, 2 * HOUR_MS);
  });

  it("takes a chain that also holds its root", async () => {
    const leaf = await issuer.sign(asked.csrPem, [CART]);
    assert.equal(check([leaf, issuer.pem, issuer.pem]).chainPem.length, 2);
  });

  it("refuses an answer without a root", async () => {
    const leaf = await issuer.sign(asked.csrPem, [CART]);
    for (const chain of [[], [leaf], [leaf, ""]]) {
      assert.throws(() => check(chain), refused(/has no root certificate beside the leaf/));
    }
  });

  it("refuses a certificate for somebody else, and one that is for others too", async () => {
    for (const uris of [[WEB], [CART, WEB], [WEB, CART]]) {
      const leaf = await issuer.sign(asked.csrPem, uris);
      assert.throws(() => check([leaf, issuer.pem]), refused(/it is for URI:spiffe:/));
    }
  });

  it("refuses a certificate for another key", async () => {
    const leaf = await issuer.sign((await createCsr(CART)).csrPem, [CART]);
    assert.throws(() => check([leaf, issuer.pem]), refused(/it is for another key/));
  });

  it("refuses a chain that does not lead to the root that came with it", async () => {
    const leaf = await issuer.sign(asked.csrPem, [CART]);
    assert.throws(() => check([leaf, other.pem]), refused(/does not lead to the root/));
    assert.throws(() => check([leaf, other.pem, other.pem]), refused(/does not lead/));
  });

  it("refuses rubbish", () => {
    const rubbish = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    assert.throws(() => check([rubbish, rubbish]), refused(/Cannot use the certificate/));
  });
});

describe("createCertificateClient()", () => {
  let authority: TestAuthority;
  let issuer: Issuer;
  let server: Server;
  let client: CertificateClient;
  let calls: Call[];
  let answer: (call: Call, respond: Respond) => void;
  let roots: string;
  let reads: number;

  const refuse = (code: status) => (_: Call, respond: Respond) =>
    respond({ code, details: "because", metadata: new Metadata() });
  const request = async (signal?: AbortSignal) => {
    const { csrPem } = await createCsr(CART);
    const wanted = { identity: CART, csrPem, ttlSeconds: 3_600, impersonate: true };
    return await client.request(wanted, signal);
  };

  before(async () => {
    authority = await TestAuthority.create();
    issuer = await Issuer.create("O=Mesh");
  });
  beforeEach(async () => {
    calls = [];
    reads = 0;
    roots = authority.rootPem;
    answer = (call, respond) => {
      const signed = issuer.sign(call.request.csr, [CART]);
      void signed.then((leaf) => {
        const certChain = [leaf, issuer.pem];
        respond(null, create(IstioCertificateResponseSchema, { certChain }));
      });
    };
    server = new Server();
    const handler = (call: Call, respond: Respond) => {
      calls.push(call);
      answer(call, respond);
    };
    server.addService({ create: CREATE_CERTIFICATE }, { create: handler });
    const { certificatePem, privateKeyPem } = await authority.issue({ dnsNames: ["localhost"] });
    const pair = {
      cert_chain: Buffer.from(certificatePem),
      private_key: Buffer.from(privateKeyPem),
    };
    const bind = promisify(server.bindAsync.bind(server));
    const port = await bind("127.0.0.1:0", ServerCredentials.createSsl(null, [pair]));
    client = createCertificateClient({
      url: new URL(`https://localhost:${port}`),
      serverName: undefined,
      readRoots: async () => roots,
      readToken: async () => `token-${++reads}\n`,
      headers: { clusterid: "c1" },
    });
  });
  afterEach(() => {
    client.close();
    server.forceShutdown();
  });

  it("asks in the name of the identity, with a token read anew each time", async () => {
    assert.equal((await request()).identity, CART);
    await request();
    const [call] = calls;
    assert.deepEqual(call?.request.metadata, { ImpersonatedIdentity: CART });
    assert.equal(call.request.validityDuration, 3_600n);
    assert.deepEqual(call.metadata.get("clusterid"), ["c1"]);
    const tokens = calls.map(({ metadata }) => metadata.get("authorization")[0]);
    assert.deepEqual(tokens, ["Bearer token-1", "Bearer token-2"]);
  });

  it("asks for itself without naming anybody", async () => {
    const { csrPem } = await createCsr(CART);
    await client.request({ identity: CART, csrPem, ttlSeconds: 0, impersonate: false });
    assert.equal(calls[0]?.request.metadata, undefined);
  });

  for (const code of [status.UNAUTHENTICATED, status.PERMISSION_DENIED, status.INVALID_ARGUMENT]) {
    it(`takes ${status[code]} for a no`, async () => {
      answer = refuse(code);
      const message = `Cannot get a certificate for "${CART}": because`;
      await assert.rejects(request(), { code: "CERTIFICATE_REFUSED", message });
    });
  }

  for (const code of [status.UNAVAILABLE, status.INTERNAL, status.RESOURCE_EXHAUSTED]) {
    it(`takes ${status[code]} for no answer`, async () => {
      answer = refuse(code);
      await assert.rejects(request(), { code: "CERTIFICATE_UNAVAILABLE", retry: true });
    });
  }

  it("gives up when it is told to", async () => {
    const aborting = new AbortController();
    answer = () => aborting.abort();
    await assert.rejects(request(aborting.signal), { code: "CERTIFICATE_UNAVAILABLE" });
    await assert.rejects(request(aborting.signal), { name: "AbortError" });
  });

  it("looks at the server with the roots of now, not with those of its start", async () => {
    await request();
    roots = (await TestAuthority.create("Other")).rootPem;
    await assert.rejects(request(), { code: "CERTIFICATE_UNAVAILABLE" });
    roots = authority.rootPem;
    assert.equal((await request()).identity, CART);
  });
});
