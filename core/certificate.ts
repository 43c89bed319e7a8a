export interface Validity {
  /** Milliseconds since the epoch. Both ends are valid moments (RFC 5280, 4.1.2.5). */
  readonly notBeforeMs: number;
  readonly notAfterMs: number;
}

/**
 * How long to wait before asking for the next certificate.
 *
 * The moment lies at half of the lifetime, less up to a tenth of it. Half leaves as much time for
 * retries as the certificate has served; the spread keeps pods that started together from renewing
 * together.
 *
 * @param random  in [0, 1), from the caller, so that a test can choose it
 * @returns milliseconds from `nowMs`, 0 where the moment has already passed
 * @throws RangeError where the certificate is valid for no time at all
 */
export function renewalDelayMs(validity: Validity, nowMs: number, random: number): number {
  const lifetimeMs = validity.notAfterMs - validity.notBeforeMs;
  if (lifetimeMs <= 0) {
    throw new RangeError(`Cannot plan a renewal: lifetime is ${lifetimeMs} ms`);
  }
  const renewAtMs = validity.notBeforeMs + lifetimeMs * (0.5 - 0.1 * random);
  return Math.max(0, renewAtMs - nowMs);
}

/** Whether a certificate can be shown at `nowMs`. */
export function isValidAt({ notBeforeMs, notAfterMs }: Validity, nowMs: number): boolean {
  return notBeforeMs <= nowMs && nowMs <= notAfterMs;
}
