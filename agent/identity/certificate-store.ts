import { isValidAt, renewalDelayMs } from "#core/certificate.ts";
import { MeshError, reasonOf } from "#core/errors.ts";
import type { SpiffeId } from "#core/spiffe-id.ts";
import type { CertificateRequest, IssuedCertificate } from "#wire/ca/client.ts";
import type { KeyAndCsr } from "#wire/ca/csr.ts";
import type { TlsMaterial } from "#wire/hbone/engine.ts";
import type { Logger } from "../log.ts";
import type { Timers } from "../timers.ts";
import { RequestQueue, type Urgency } from "./request-queue.ts";

/** A certificate with its key, as long as it is the newest of its identity. */
export interface HeldCertificate {
  readonly identity: SpiffeId;
  readonly issued: IssuedCertificate;
  readonly material: TlsMaterial;
}

export interface CertificateStoreOptions {
  readonly request: (
    request: CertificateRequest,
    signal?: AbortSignal,
  ) => Promise<IssuedCertificate>;
  readonly createCsr: (identity: SpiffeId) => Promise<KeyAndCsr>;
  readonly timers: Timers;
  /** In [0, 1). */
  readonly random: () => number;
  readonly ttlMs: number;
  readonly log: Logger;
}

/** What is known of an identity, for people: no key is in it. */
export interface CertificateStatus {
  readonly identity: SpiffeId;
  readonly state: "Available" | "Initializing" | "Unavailable";
  readonly issued: IssuedCertificate | undefined;
  /** Of the last attempt, where it failed. */
  readonly error: string | undefined;
}

/** As many as ztunnel: enough to warm up a node, too few to hurt the authority. */
const CONCURRENT_REQUESTS_MAX = 8;

/** The authority signs in milliseconds; one that has not answered by then will not. */
const REQUEST_TIMEOUT_MS = 10_000;

/** How long a connection waits for the first certificate of its identity. */
const WAIT_LIMIT_MS = 5_000;

/** The first retry comes after 0.5 to 1 s, the last ones every 150 s, 20 % more or less. */
const RETRY_FIRST_MS = 1_000;
const RETRY_MAX_MS = 150_000;

/** A connection that waits brings the next attempt forward, but no closer to the last than this. */
const ATTEMPT_GAP_MIN_MS = 1_000;

interface Entry {
  held: HeldCertificate | undefined;
  failures: number;
  error: MeshError | undefined;
  lastAttemptMs: number;
  cancelTimer: (() => void) | undefined;
  /** Kept or broken by the next attempt. */
  waiters: ((outcome: HeldCertificate | MeshError) => void)[];
}

/**
 * Obtains a certificate for each identity that runs on this node, renews it at half of its life and
 * keeps it until it expires if that fails.
 *
 * Keys are made here, are handed to TLS, and go nowhere else.
 */
export class CertificateStore {
  readonly #options: CertificateStoreOptions;
  readonly #entries = new Map<SpiffeId, Entry>();
  readonly #queue = new RequestQueue<SpiffeId>(CONCURRENT_REQUESTS_MAX);
  readonly #abort = new AbortController();

  constructor(options: CertificateStoreOptions) {
    this.#options = options;
  }

  /** The newest certificate that is valid now. */
  current(identity: SpiffeId): HeldCertificate | undefined {
    const held = this.#entries.get(identity)?.held;
    const isUsable = held && isValidAt(held.issued.validity, this.#options.timers.nowMs());
    return isUsable ? held : undefined;
  }

  /**
   * The certificate for a connection; waits for it up to 5 s.
   *
   * @throws MeshError `CERTIFICATE_REFUSED`, `CERTIFICATE_UNAVAILABLE`
   */
  async obtain(identity: SpiffeId): Promise<HeldCertificate> {
    const held = this.current(identity);
    if (held) return held;
    const entry = this.#entryFor(identity);
    const sinceLastMs = this.#options.timers.nowMs() - entry.lastAttemptMs;
    this.#schedule(identity, entry, Math.max(0, ATTEMPT_GAP_MIN_MS - sinceLastMs), "connection");
    const outcome = await this.#outcomeOf(identity, entry);
    if (outcome instanceof MeshError) throw outcome;
    return outcome;
  }

  /** Obtains certificates of identities that have come, forgets those that are not listed. */
  retain(identities: ReadonlySet<SpiffeId>): void {
    for (const [identity, entry] of this.#entries) {
      if (!identities.has(identity)) this.#forget(identity, entry);
    }
    for (const identity of identities) {
      if (this.#entries.has(identity)) continue;
      this.#schedule(identity, this.#entryFor(identity), 0, "warmup");
    }
  }

  status(): readonly CertificateStatus[] {
    return [...this.#entries].map(([identity, { held, error }]) => {
      const isUsable = this.current(identity) !== undefined;
      const withoutOne = error === undefined ? "Initializing" : "Unavailable";
      return {
        identity,
        state: isUsable ? "Available" : withoutOne,
        issued: held?.issued,
        error: error && reasonOf(error),
      };
    });
  }

  close(): void {
    this.#abort.abort();
    for (const [identity, entry] of [...this.#entries]) this.#forget(identity, entry);
  }

  #entryFor(identity: SpiffeId): Entry {
    const known = this.#entries.get(identity);
    if (known) return known;
    const entry: Entry = {
      held: undefined,
      failures: 0,
      error: undefined,
      lastAttemptMs: Number.NEGATIVE_INFINITY,
      cancelTimer: undefined,
      waiters: [],
    };
    this.#entries.set(identity, entry);
    return entry;
  }

  #schedule(identity: SpiffeId, entry: Entry, delayMs: number, urgency: Urgency): void {
    entry.cancelTimer?.();
    entry.cancelTimer = undefined;
    const enqueue = () => {
      entry.cancelTimer = undefined;
      this.#queue.add(identity, urgency);
      this.#pump();
    };
    if (delayMs <= 0) enqueue();
    else entry.cancelTimer = this.#options.timers.after(delayMs, enqueue);
  }

  #pump(): void {
    for (let next = this.#queue.take(); next !== undefined; next = this.#queue.take()) {
      const identity = next;
      void this.#attempt(identity).finally(() => {
        this.#queue.done(identity);
        this.#resume(identity);
        this.#pump();
      });
    }
  }

  /** An identity that was forgotten and came back while a request was running has none planned. */
  #resume(identity: SpiffeId): void {
    const entry = this.#entries.get(identity);
    if (entry && !entry.held && !entry.error && !entry.cancelTimer) {
      this.#queue.add(identity, entry.waiters.length > 0 ? "connection" : "warmup");
    }
  }

  /** Never rejects: what goes wrong is kept with the identity. */
  async #attempt(identity: SpiffeId): Promise<void> {
    const entry = this.#entries.get(identity);
    if (!entry) return;
    entry.lastAttemptMs = this.#options.timers.nowMs();
    const outcome = await this.#request(identity);
    // It may have been forgotten, or forgotten and come back, meanwhile.
    if (this.#entries.get(identity) !== entry) return;
    if (outcome instanceof MeshError) this.#failed(identity, entry, outcome);
    else this.#succeeded(identity, entry, outcome);
    const waiters = entry.waiters;
    entry.waiters = [];
    for (const wake of waiters) wake(outcome);
  }

  async #request(identity: SpiffeId): Promise<HeldCertificate | MeshError> {
    const { createCsr, request, timers, ttlMs } = this.#options;
    const timeout = new AbortController();
    const cancelTimer = timers.after(REQUEST_TIMEOUT_MS, () => timeout.abort());
    try {
      const { keyPem, csrPem } = await createCsr(identity);
      const issued = await request(
        { identity, csrPem, ttlSeconds: Math.ceil(ttlMs / 1_000), impersonate: true },
        AbortSignal.any([this.#abort.signal, timeout.signal]),
      );
      this.#check(issued);
      const material: TlsMaterial = {
        certificateChainPem: issued.chainPem.join("\n"),
        privateKeyPem: keyPem,
        rootsPem: issued.rootsPem.join("\n"),
      };
      return { identity, issued, material };
    } catch (cause) {
      if (cause instanceof MeshError) return cause;
      const attempt = `Cannot obtain a certificate for "${identity}"`;
      return new MeshError("CERTIFICATE_UNAVAILABLE", attempt, { cause });
    } finally {
      cancelTimer();
    }
  }

  /** A certificate that cannot be shown, or that would have to be renewed at once, is none. */
  #check({ identity, validity }: IssuedCertificate): void {
    const nowMs = this.#options.timers.nowMs();
    if (isValidAt(validity, nowMs) && validity.notAfterMs > nowMs) return;
    const [from, to] = [validity.notBeforeMs, validity.notAfterMs].map((ms) =>
      new Date(ms).toISOString(),
    );
    const reason = `it is valid from ${from} to ${to}, and now is ${new Date(nowMs).toISOString()}`;
    throw new MeshError(
      "CERTIFICATE_REFUSED",
      `Cannot use certificate of "${identity}": ${reason}`,
    );
  }

  #succeeded(identity: SpiffeId, entry: Entry, held: HeldCertificate): void {
    const { log, random, timers } = this.#options;
    entry.held = held;
    entry.failures = 0;
    entry.error = undefined;
    const { validity, serialNumber } = held.issued;
    const delayMs = renewalDelayMs(validity, timers.nowMs(), random());
    // An authority whose clock is ahead would otherwise be asked again at once, for ever.
    this.#schedule(identity, entry, Math.max(delayMs, ATTEMPT_GAP_MIN_MS), "background");
    const expires = new Date(validity.notAfterMs).toISOString();
    log.info({ identity, serial: serialNumber, expires }, "certificate obtained");
  }

  #failed(identity: SpiffeId, entry: Entry, error: MeshError): void {
    entry.error = error;
    entry.failures++;
    const delayMs = retryDelayMs(entry.failures, this.#options.random());
    const urgency = this.current(identity) ? "background" : "warmup";
    this.#schedule(identity, entry, delayMs, urgency);
    this.#options.log.warn(
      { identity, error: reasonOf(error), retryDelayMs: delayMs },
      "no certificate",
    );
  }

  #outcomeOf(identity: SpiffeId, entry: Entry): Promise<HeldCertificate | MeshError> {
    return new Promise((resolve) => {
      const wake = (outcome: HeldCertificate | MeshError) => {
        cancelTimer();
        resolve(outcome);
      };
      const cancelTimer = this.#options.timers.after(WAIT_LIMIT_MS, () => {
        entry.waiters = entry.waiters.filter((waiter) => waiter !== wake);
        resolve(entry.error ?? unavailable(identity, "the authority has not answered yet"));
      });
      entry.waiters.push(wake);
    });
  }

  #forget(identity: SpiffeId, entry: Entry): void {
    entry.cancelTimer?.();
    this.#queue.drop(identity);
    this.#entries.delete(identity);
    for (const wake of entry.waiters) wake(unavailable(identity, "its last pod has left"));
  }
}

/** @param failures  in a row, from 1 */
export function retryDelayMs(failures: number, random: number): number {
  if (failures === 1) return Math.round(RETRY_FIRST_MS * (0.5 + 0.5 * random));
  const delayMs = Math.min(RETRY_MAX_MS, RETRY_FIRST_MS * 2 ** (failures - 1));
  return Math.round(delayMs * (0.8 + 0.4 * random));
}

function unavailable(identity: SpiffeId, reason: string): MeshError {
  const attempt = `Cannot obtain a certificate for "${identity}"`;
  return new MeshError("CERTIFICATE_UNAVAILABLE", `${attempt}: ${reason}`);
}
