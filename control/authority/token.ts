/** Node tokens: what an agent outside Kubernetes proves its node with. */
import {
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  type KeyObject,
} from "node:crypto";
import { join } from "node:path";
import { errors, jwtVerify, SignJWT } from "jose";
import type { Clock } from "#core/clock.ts";
import { MeshError } from "#core/errors.ts";
import type { Authenticate } from "#wire/xds/caller.ts";
import { createFile, preparePrivateDirectory, readOptionalKey } from "./files.ts";

export interface NodeTokenRequest {
  /** Control's state directory; the signing key is made there where there is none yet. */
  readonly stateDirectory: string;
  readonly node: string;
  readonly ttlMs: number;
  readonly clock: Clock;
}

const KEY_FILE = "token-key.pem";
const ALGORITHM = "ES256";
const ISSUER = "aquifer-control";
/** The audience that Istio's projected tokens have as well. */
const AUDIENCE = "istio-ca";
const SUBJECT_PREFIX = "node:";

/** The name of a node is that of a Kubernetes object: a DNS subdomain (RFC 1123, 2.1). */
const NODE_NAME = /^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$/;

/**
 * @returns a JWT: ES256, `sub` `node:NAME`, `aud` `istio-ca`, with an end
 * @throws MeshError `SETTINGS_INVALID` where the name or the lifetime is none, or the key cannot be
 *   used
 */
export async function issueNodeToken(request: NodeTokenRequest): Promise<string> {
  const { stateDirectory, node, ttlMs, clock } = request;
  if (!NODE_NAME.test(node)) {
    throw new MeshError("SETTINGS_INVALID", `Cannot issue a token: "${node}" is no name of a node`);
  }
  if (!(ttlMs >= 1_000)) {
    throw new MeshError("SETTINGS_INVALID", `Cannot issue a token for ${ttlMs} ms: too short`);
  }
  const nowSeconds = Math.floor(clock.nowMs() / 1_000);
  return await new SignJWT()
    .setProtectedHeader({ alg: ALGORITHM })
    .setIssuer(ISSUER)
    .setAudience(AUDIENCE)
    .setSubject(SUBJECT_PREFIX + node)
    .setIssuedAt(nowSeconds)
    .setExpirationTime(nowSeconds + Math.floor(ttlMs / 1_000))
    .sign(await openTokenKey(stateDirectory));
}

/** Recognises nodes by tokens of `issueNodeToken()` from the same state directory. */
export async function openTokenAuthenticator(
  stateDirectory: string,
  clock: Clock,
): Promise<Authenticate> {
  const publicKey = createPublicKey(await openTokenKey(stateDirectory));
  return async ({ bearerToken }) => {
    if (bearerToken === undefined) return refused("there is none, want `authorization: Bearer …`");
    try {
      const { payload } = await jwtVerify(bearerToken, publicKey, {
        algorithms: [ALGORITHM],
        issuer: ISSUER,
        audience: AUDIENCE,
        requiredClaims: ["exp", "sub"],
        currentDate: new Date(clock.nowMs()),
      });
      const node = nodeOf(payload.sub ?? "");
      if (node === undefined) return refused(`its subject "${payload.sub}" is no node`);
      return { kind: "accepted", caller: { kind: "node", node } };
    } catch (error) {
      if (error instanceof errors.JOSEError) return refused(reasonFor(error));
      throw error;
    }
  };
}

async function openTokenKey(stateDirectory: string): Promise<KeyObject> {
  await preparePrivateDirectory(stateDirectory);
  const path = join(stateDirectory, KEY_FILE);
  let pem = await readOptionalKey(path);
  if (pem === undefined) {
    const { privateKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
    await createFile(path, privateKey.export({ type: "pkcs8", format: "pem" }).toString(), 0o600);
    // Not the one just made: another process may have been faster, and then its key is in force.
    pem = await readOptionalKey(path);
  }
  try {
    return createPrivateKey(pem ?? "");
  } catch (error) {
    throw new MeshError("SETTINGS_INVALID", `Cannot use key "${path}"`, { cause: error });
  }
}

function nodeOf(subject: string): string | undefined {
  const node = subject.startsWith(SUBJECT_PREFIX) ? subject.slice(SUBJECT_PREFIX.length) : "";
  return NODE_NAME.test(node) ? node : undefined;
}

function reasonFor(error: errors.JOSEError): string {
  if (error instanceof errors.JWTExpired) {
    const { exp } = error.payload;
    return exp === undefined
      ? "it has expired"
      : `it expired at ${new Date(exp * 1_000).toISOString()}`;
  }
  if (error instanceof errors.JWSSignatureVerificationFailed) return "its signature is not ours";
  return error.message;
}

function refused(reason: string) {
  return { kind: "refused", reason: `Cannot accept the token: ${reason}` } as const;
}
