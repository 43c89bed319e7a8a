/** Node tokens: what an agent outside Kubernetes proves its node with. */
import type { Clock } from "#core/clock.ts";

export interface NodeTokenRequest {
  /** Control's state directory; the signing key is made there where there is none yet. */
  readonly stateDirectory: string;
  readonly node: string;
  readonly ttlMs: number;
  readonly clock: Clock;
}

/** @returns a JWT: ES256, `sub` `node:NAME`, `aud` `istio-ca`, with an end */
export async function issueNodeToken(_request: NodeTokenRequest): Promise<string> {
  throw new TypeError("not written yet");
}
