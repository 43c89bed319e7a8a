import assert from "node:assert/strict";
import { createPrivateKey } from "node:crypto";
import { chmod, mkdtemp, readFile, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, it } from "node:test";
import { decodeJwt, SignJWT } from "jose";
import { issueNodeToken, openTokenAuthenticator } from "./token.ts";

const NOW_MS = Date.UTC(2026, 10, 21, 12);
const HOUR_MS = 3_600_000;

describe("node tokens", () => {
  let stateDirectory: string;
  beforeEach(async () => {
    stateDirectory = await mkdtemp(join(tmpdir(), `aquifer-token-${process.pid}-`));
  });
  afterEach(async () => await rm(stateDirectory, { recursive: true }));

  const issue = async (node = "n1", ttlMs = HOUR_MS) =>
    await issueNodeToken({ stateDirectory, node, ttlMs, clock: { nowMs: () => NOW_MS } });
  /** The node, or the reason for which there is none. */
  const check = async (bearerToken: string | undefined, nowMs = NOW_MS) => {
    const authenticate = await openTokenAuthenticator(stateDirectory, { nowMs: () => nowMs });
    const outcome = await authenticate({ bearerToken, clusterId: undefined });
    return outcome.kind === "accepted" ? outcome.caller.node : outcome.reason;
  };
  const forge = async (change: (token: SignJWT) => SignJWT, alg = "ES256") => {
    const key = createPrivateKey(await readFile(join(stateDirectory, "token-key.pem"), "utf8"));
    const token = new SignJWT()
      .setProtectedHeader({ alg })
      .setIssuer("aquifer-control")
      .setAudience("istio-ca")
      .setSubject("node:n1")
      .setExpirationTime(NOW_MS / 1_000 + 60);
    return await change(token).sign(alg === "ES256" ? key : new TextEncoder().encode("secret"));
  };

  it("name the node, the audience and the end", async () => {
    assert.deepEqual(decodeJwt(await issue()), {
      iss: "aquifer-control",
      aud: "istio-ca",
      sub: "node:n1",
      iat: NOW_MS / 1_000,
      exp: NOW_MS / 1_000 + 3_600,
    });
    assert.equal(await check(await issue()), "n1");
  });

  it("are good until they end, and not after", async () => {
    const token = await issue();
    assert.equal(await check(token, NOW_MS + HOUR_MS - 1_000), "n1");
    const expired = "Cannot accept the token: it expired at 2026-11-21T13:00:00.000Z";
    assert.equal(await check(token, NOW_MS + HOUR_MS), expired);
  });

  it("are signed with a key for its owner's eyes only, which stays the same", async () => {
    const token = await issue();
    const path = join(stateDirectory, "token-key.pem");
    assert.equal((await stat(path)).mode & 0o777, 0o600);
    await issue("n2");
    assert.equal(await check(token), "n1");
    await chmod(path, 0o604);
    await assert.rejects(issue(), /others can read it \(mode 0604, want 0600\)/);
  });

  it("have one key also where several processes make the first at once", async () => {
    const tokens = await Promise.all(["n1", "n2", "n3", "n4"].map((node) => issue(node)));
    assert.deepEqual(await Promise.all(tokens.map((token) => check(token))), [
      "n1",
      "n2",
      "n3",
      "n4",
    ]);
  });

  it("are refused where they are missing, or are none", async () => {
    assert.match(await check(undefined), /there is none/);
    assert.match(await check("no.jwt.atall"), /Cannot accept the token/);
  });

  it("are refused by a control with another key", async () => {
    const token = await issue();
    await rm(join(stateDirectory, "token-key.pem"));
    assert.equal(await check(token), "Cannot accept the token: its signature is not ours");
  });

  it("are refused with any claim that is not ours", async () => {
    await issue();
    const forged: readonly (readonly [(token: SignJWT) => SignJWT, RegExp])[] = [
      [(token) => token.setAudience("other"), /"aud"/],
      [(token) => token.setIssuer("other"), /"iss"/],
      [(token) => token.setSubject("system:serviceaccount:a:b"), /subject .* is no node/],
      [(token) => token.setSubject("node:"), /subject "node:" is no node/],
      [(token) => token.setSubject("node:../x"), /is no node/],
      [(token) => token.setNotBefore(NOW_MS / 1_000 + 30), /"nbf"/],
    ];
    for (const [change, pattern] of forged) assert.match(await check(await forge(change)), pattern);
    const endless = new SignJWT({ iss: "aquifer-control", aud: "istio-ca", sub: "node:n1" });
    const unending = await forge(() => endless.setProtectedHeader({ alg: "ES256" }));
    assert.match(await check(unending), /"exp"/);
  });

  it("are refused with another algorithm, or none", async () => {
    await issue();
    assert.match(await check(await forge((token) => token, "HS256")), /"alg"/);
    const [, body = ""] = (await issue()).split(".");
    const header = Buffer.from(JSON.stringify({ alg: "none" })).toString("base64url");
    assert.match(await check(`${header}.${body}.`), /Cannot accept the token/);
  });

  it("are not issued for what is no name of a node, or for no time", async () => {
    for (const node of ["", "N1", "a b", "-a", "a/b"]) {
      await assert.rejects(issue(node), /is no name of a node/);
    }
    for (const ttlMs of [0, -1, Number.NaN]) await assert.rejects(issue("n1", ttlMs), /too short/);
  });
});
