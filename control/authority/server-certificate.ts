/**
 * The control server's own certificate: issued by its own authority, kept in memory, renewed at
 * half of its life without a restart.
 */
import { generateKeyPairSync, type KeyObject } from "node:crypto";
import { isIP } from "node:net";
import type { SecureContextOptions } from "node:tls";
import { ServerCredentials } from "@grpc/grpc-js";
import { renewalDelayMs } from "#core/certificate.ts";
import type { Clock } from "#core/clock.ts";
import { reasonOf } from "#core/errors.ts";
import type { Authority } from "./root.ts";
import { type LeafName, signLeaf } from "./sign.ts";

export type ServerCertificateEvent =
  | { readonly kind: "serverCertificateRenewed"; readonly notAfterMs: number }
  | { readonly kind: "serverCertificateNotRenewed"; readonly reason: string };

export interface ServerCertificateOptions {
  readonly authority: Authority;
  /** Besides those it always has. */
  readonly names: readonly string[];
  readonly clock: Clock;
  /** In [0, 1), see `renewalDelayMs()`. */
  readonly random: () => number;
  readonly onEvent: (event: ServerCertificateEvent) => void;
  /** Tests shorten it. */
  readonly ttlMs?: number;
}

/** How agents and ztunnels call the control server by default, and how one reaches it locally. */
const ALWAYS = ["istiod.istio-system.svc", "localhost", "127.0.0.1", "::1"] as const;

const TTL_MS = 24 * 60 * 60 * 1_000;
/** After a failed renewal. The old certificate has half of its life left then. */
const RETRY_DELAY_MS = 60_000;

export class ServerCertificate {
  readonly credentials: ServerCredentials;
  readonly #options: ServerCertificateOptions;
  readonly #renewable: RenewableCredentials;
  #timer: NodeJS.Timeout | undefined;

  private constructor(options: ServerCertificateOptions, credentials: RenewableCredentials) {
    this.#options = options;
    this.#renewable = credentials;
    this.credentials = credentials;
  }

  static async issue(options: ServerCertificateOptions): Promise<ServerCertificate> {
    const certificate = new ServerCertificate(options, new RenewableCredentials());
    await certificate.#renew();
    return certificate;
  }

  /** Ends the renewals. */
  close(): void {
    clearTimeout(this.#timer);
  }

  async #renew(): Promise<void> {
    const { authority, names, clock, random, ttlMs = TTL_MS } = this.#options;
    const { privateKey, publicKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
    const nowMs = clock.nowMs();
    const leafNames = [...new Set([...ALWAYS, ...names])].map(leafNameOf);
    const leaf = await signLeaf(authority, { names: leafNames, publicKey, ttlMs, nowMs });
    this.#renewable.use(privateKey, [leaf.certificatePem, ...authority.intermediatesPem]);
    this.#schedule(renewalDelayMs(leaf, nowMs, random()));
    this.#options.onEvent({ kind: "serverCertificateRenewed", notAfterMs: leaf.notAfterMs });
  }

  #schedule(delayMs: number): void {
    this.#timer = setTimeout(() => void this.#renewOrRetry(), delayMs);
    // Serving keeps the process alive, not the plan to renew.
    this.#timer.unref();
  }

  async #renewOrRetry(): Promise<void> {
    try {
      await this.#renew();
    } catch (error) {
      this.#options.onEvent({ kind: "serverCertificateNotRenewed", reason: reasonOf(error) });
      this.#schedule(RETRY_DELAY_MS);
    }
  }
}

/** grpc-js listens for changes of these: new connections get the newest. */
class RenewableCredentials extends ServerCredentials {
  constructor() {
    super({});
  }

  use(privateKey: KeyObject, chainPem: readonly string[]): void {
    const context: SecureContextOptions = {
      key: privateKey.export({ type: "pkcs8", format: "pem" }),
      cert: chainPem.join(""),
      minVersion: "TLSv1.2",
    };
    this.updateSecureContextOptions(context);
  }

  _equals(other: ServerCredentials): boolean {
    return this === other;
  }
}

function leafNameOf(name: string): LeafName {
  return isIP(name) === 0 ? { kind: "dns", name } : { kind: "ip", name };
}
