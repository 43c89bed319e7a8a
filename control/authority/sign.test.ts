import assert from "node:assert/strict";
import { X509Certificate } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { parseSpiffeId } from "#core/spiffe-id.ts";
import { createCsr } from "#wire/ca/csr.ts";
import type { SigningRequest } from "#wire/ca/server.ts";
import { issueCertificate } from "./issue.ts";
import { type Authority, openAuthority } from "./root.ts";

const NOW_MS = Date.UTC(2026, 10, 21, 12, 0, 0, 777);
const DAY_MS = 86_400_000;
const CART = parseSpiffeId("spiffe://cluster.local/ns/shop/sa/cart");
const placement = { podsOnNode: () => [{ namespace: "shop", serviceAccount: "cart" }] };

describe("issueCertificate()", () => {
  let directory: string;
  let authority: Authority;
  let csrPem: string;
  before(async () => {
    directory = await mkdtemp(join(tmpdir(), `aquifer-sign-${process.pid}-`));
    const clock = { nowMs: () => NOW_MS };
    authority = await openAuthority({ directory, trustDomain: "cluster.local", clock });
    csrPem = (await createCsr(CART)).csrPem;
  });
  after(async () => await rm(directory, { recursive: true }));

  const issue = async (change: Partial<SigningRequest> = {}, nowMs = NOW_MS) =>
    await issueCertificate(
      {
        caller: { kind: "node", node: "n1" },
        csrPem,
        ttlSeconds: 3_600n,
        impersonated: CART,
        ...change,
      },
      { authority, placement, trustDomain: "cluster.local", clock: { nowMs: () => nowMs } },
    );
  const leafOf = async (change: Partial<SigningRequest> = {}, nowMs = NOW_MS) => {
    const outcome = await issue(change, nowMs);
    assert.ok(outcome.kind === "issued", JSON.stringify(outcome));
    return new X509Certificate(outcome.chainPem[0] ?? "");
  };

  it("starts two minutes back, and ends when it was asked to", async () => {
    const { validFromDate, validToDate } = await leafOf();
    const nowSecondMs = Math.floor(NOW_MS / 1_000) * 1_000;
    assert.equal(validFromDate.getTime(), nowSecondMs - 120_000);
    assert.equal(validToDate.getTime(), nowSecondMs + 3_600_000);
  });

  it("gives a day to who asks for no time in particular", async () => {
    const { validToDate } = await leafOf({ ttlSeconds: 0n });
    assert.equal(validToDate.getTime(), Math.floor((NOW_MS + DAY_MS) / 1_000) * 1_000);
  });

  it("never outlives the authority", async () => {
    const issuer = new X509Certificate(authority.rootsPem[0] ?? "");
    const lateMs = issuer.validToDate.getTime() - 60_000;
    assert.deepEqual((await leafOf({}, lateMs)).validToDate, issuer.validToDate);
    await assert.rejects(issue({}, lateMs + 60_000), { code: "CERTIFICATE_UNAVAILABLE" });
  });

  it("refuses lifetimes above 90 days, and negative ones", async () => {
    for (const ttlSeconds of [7_776_001n, -1n, 2n ** 63n - 1n]) {
      const outcome = await issue({ ttlSeconds });
      assert.ok(outcome.kind === "invalid");
      assert.match(outcome.reason, /a lifetime is from 1 to 7776000 s, not -?\d+ s/);
    }
    assert.equal((await issue({ ttlSeconds: 7_776_000n })).kind, "issued");
  });

  it("names the identity that was confirmed, whatever the request says", async () => {
    const other = parseSpiffeId("spiffe://cluster.local/ns/bank/sa/root");
    const leaf = await leafOf({ csrPem: (await createCsr(other)).csrPem });
    assert.equal(leaf.subjectAltName, `URI:${CART}`);
    assert.equal(leaf.subject, undefined);
    assert.equal(leaf.ca, false);
  });

  it("is signed by the authority, with a number of its own each time", async () => {
    const [one, two] = [await leafOf(), await leafOf()];
    const issuer = new X509Certificate(authority.rootsPem[0] ?? "");
    assert.ok(one.checkIssued(issuer) && one.verify(issuer.publicKey));
    assert.notEqual(one.serialNumber, two.serialNumber);
    assert.equal(one.serialNumber.length, 32);
  });

  it("looks at who asks before it looks at what", async () => {
    const outcome = await issue({ impersonated: "nobody", csrPem: "rubbish", ttlSeconds: -1n });
    assert.equal(outcome.kind, "forbidden");
  });
});
