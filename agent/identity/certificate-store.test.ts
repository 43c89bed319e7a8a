import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { MeshError } from "#core/errors.ts";
import { parseSpiffeId, type SpiffeId } from "#core/spiffe-id.ts";
import type { CertificateRequest, IssuedCertificate } from "#wire/ca/client.ts";
import { FakeTimers, settle } from "../../test/support/fake-timers.ts";
import { Loggers, parseLogLevels } from "../log.ts";
import { CertificateStore, retryDelayMs } from "./certificate-store.ts";

const HOUR_MS = 3_600_000;
const CART = parseSpiffeId("spiffe://cluster.local/ns/shop/sa/cart");

const identityNumber = (number: number): SpiffeId =>
  parseSpiffeId(`spiffe://cluster.local/ns/shop/sa/s${number}`);

/** A store with an authority that answers when, and what, a test says. */
function createStore(random = 0) {
  const timers = new FakeTimers();
  const lines: string[] = [];
  const loggers = new Loggers(
    { format: "json", levels: parseLogLevels("trace") },
    { write: (line: string) => lines.push(line) },
  );
  const asked: CertificateRequest[] = [];
  const answers: ((outcome: IssuedCertificate | Error) => void)[] = [];
  const authority = { answerWith: undefined as (() => IssuedCertificate | Error) | undefined };
  let serial = 0;
  const issue = (identity: SpiffeId, lifeMs = 24 * HOUR_MS): IssuedCertificate => ({
    identity,
    chainPem: ["leaf"],
    rootsPem: ["root"],
    validity: { notBeforeMs: timers.nowMs(), notAfterMs: timers.nowMs() + lifeMs },
    serialNumber: String(++serial),
  });
  const store = new CertificateStore({
    request: (request, signal) => {
      asked.push(request);
      return new Promise((resolve, reject) => {
        const answer = (outcome: IssuedCertificate | Error) =>
          outcome instanceof Error ? reject(outcome) : resolve(outcome);
        signal?.addEventListener("abort", () => answer(new Error("aborted")), { once: true });
        if (authority.answerWith) answer(authority.answerWith());
        else answers.push(answer);
      });
    },
    createCsr: async (identity) => ({ keyPem: "SECRET KEY", csrPem: `csr of ${identity}` }),
    timers,
    random: () => random,
    ttlMs: 24 * HOUR_MS,
    log: loggers.for("identity"),
  });
  return { store, timers, asked, answers, authority, issue, lines };
}

describe("CertificateStore", () => {
  it("asks once for all connections that wait for one identity", async () => {
    const { store, asked, answers, issue } = createStore();
    const waiting = [store.obtain(CART), store.obtain(CART)];
    await settle();
    assert.equal(asked.length, 1);
    assert.deepEqual(asked[0], {
      identity: CART,
      csrPem: `csr of ${CART}`,
      ttlSeconds: 86_400,
      impersonate: true,
    });
    answers[0]?.(issue(CART));
    const [first, second] = await Promise.all(waiting);
    assert.equal(first, second);
    assert.equal(store.current(CART), first);
    assert.deepEqual(first?.material, {
      certificateChainPem: "leaf",
      privateKeyPem: "SECRET KEY",
      rootsPem: "root",
    });
  });

  it("renews at half of the life and serves the old one meanwhile", async () => {
    const { store, timers, asked, answers, authority, issue } = createStore();
    authority.answerWith = () => issue(CART);
    const first = await store.obtain(CART);
    authority.answerWith = undefined;
    await timers.advance(12 * HOUR_MS - 1);
    assert.equal(asked.length, 1);
    await timers.advance(1);
    assert.equal(asked.length, 2);
    assert.equal(store.current(CART), first);
    answers[0]?.(issue(CART));
    await settle();
    assert.equal(store.current(CART)?.issued.serialNumber, "2");
  });

  it("keeps a certificate until it expires where renewing fails, and not longer", async () => {
    const { store, timers, authority, issue } = createStore();
    authority.answerWith = () => issue(CART);
    const first = await store.obtain(CART);
    authority.answerWith = () => new MeshError("CERTIFICATE_UNAVAILABLE", "no answer");
    await timers.advance(24 * HOUR_MS);
    assert.equal(store.current(CART), first);
    await timers.advance(1);
    assert.equal(store.current(CART), undefined);
    assert.equal(store.status()[0]?.state, "Unavailable");
    authority.answerWith = () => issue(CART);
    await timers.advance(181_000);
    assert.ok(store.current(CART));
  });

  it("tells a waiting connection why there is no certificate", async () => {
    const { store, authority } = createStore();
    authority.answerWith = () => new MeshError("CERTIFICATE_REFUSED", "not on this node");
    await assert.rejects(store.obtain(CART), { code: "CERTIFICATE_REFUSED" });
  });

  it("brings the next attempt forward for a connection, once a second", async () => {
    const { store, timers, asked, authority, issue } = createStore();
    authority.answerWith = () => new MeshError("CERTIFICATE_REFUSED", "not on this node");
    store.retain(new Set([CART]));
    await timers.advance(60_000);
    await timers.advance(timers.nextInMs() ?? 0);
    const askedBefore = asked.length;
    await timers.advance(10_000);
    assert.equal(asked.length, askedBefore, "the next retry is far away");
    authority.answerWith = () => issue(CART);
    const held = store.obtain(CART);
    await timers.advance(0);
    assert.equal((await held).identity, CART);
  });

  it("waits 5 s for an authority that does not answer, and gives up on it after 10 s", async () => {
    const { store, timers, asked } = createStore();
    const waiting = assert.rejects(store.obtain(CART), { code: "CERTIFICATE_UNAVAILABLE" });
    await timers.advance(5_000);
    await waiting;
    await timers.advance(5_000 + 500);
    assert.equal(asked.length, 2);
  });

  it("asks for no more than 8 at a time, and for what a connection needs first", async () => {
    const { store, asked, answers, issue } = createStore();
    store.retain(new Set(Array.from({ length: 20 }, (_, number) => identityNumber(number))));
    await settle();
    assert.equal(asked.length, 8);
    const urgent = store.obtain(identityNumber(19));
    answers[0]?.(issue(identityNumber(0)));
    await settle();
    assert.equal(asked[8]?.identity, identityNumber(19));
    answers[8]?.(issue(identityNumber(19)));
    assert.equal((await urgent).identity, identityNumber(19));
  });

  it("forgets an identity with its last pod, and asks anew when it comes back", async () => {
    const { store, asked, answers, authority, issue, timers } = createStore();
    store.retain(new Set([CART]));
    await settle();
    store.retain(new Set());
    store.retain(new Set([CART]));
    answers[0]?.(issue(CART));
    authority.answerWith = () => issue(CART);
    await settle();
    await settle();
    assert.equal(asked.length, 2);
    assert.ok(store.current(CART));
    store.retain(new Set());
    assert.deepEqual(store.status(), []);
    await timers.advance(48 * HOUR_MS);
    assert.equal(asked.length, 2);
  });

  it("does not use a certificate that is not valid yet", async () => {
    const { store, authority, issue, timers } = createStore();
    authority.answerWith = () => {
      const issued = issue(CART);
      const validity = {
        notBeforeMs: timers.nowMs() + 60_000,
        notAfterMs: timers.nowMs() + HOUR_MS,
      };
      return { ...issued, validity };
    };
    await assert.rejects(store.obtain(CART), {
      code: "CERTIFICATE_REFUSED",
      message: /is valid from/,
    });
  });

  it("never shows a key in its log or its status", async () => {
    const { store, authority, issue, lines } = createStore();
    authority.answerWith = () => issue(CART);
    await store.obtain(CART);
    assert.ok(lines.length > 0);
    assert.doesNotMatch(lines.join("") + JSON.stringify(store.status()), /SECRET/);
  });
});

describe("retryDelayMs()", () => {
  it("begins at half a second to one, doubles, and stops at 150 s, 20 % more or less", () => {
    assert.deepEqual([retryDelayMs(1, 0), retryDelayMs(1, 1)], [500, 1_000]);
    assert.deepEqual([retryDelayMs(2, 0.5), retryDelayMs(3, 0.5)], [2_000, 4_000]);
    assert.deepEqual([retryDelayMs(50, 0), retryDelayMs(50, 1)], [120_000, 180_000]);
  });
});
