/** How much somebody is waiting for a certificate, the least first. */
export const URGENCIES = ["background", "warmup", "connection"] as const;

/**
 * - `background`: a renewal, long before the old one expires
 * - `warmup`: a pod that has come, before its first connection
 * - `connection`: a connection is waiting
 */
export type Urgency = (typeof URGENCIES)[number];

/**
 * Decides which identity's certificate is asked for next: the most urgent, and of these the one
 * that has waited longest. No more than `concurrencyMax` are asked for at a time.
 */
export class RequestQueue<Key> {
  readonly #concurrencyMax: number;
  readonly #waiting = new Map<Key, Urgency>();
  readonly #running = new Set<Key>();

  constructor(concurrencyMax: number) {
    this.#concurrencyMax = concurrencyMax;
  }

  /** Adds `key`, or makes it more urgent. Without effect while it is running. */
  add(key: Key, urgency: Urgency): void {
    if (this.#running.has(key)) return;
    const known = this.#waiting.get(key);
    if (known === undefined || isMoreUrgent(urgency, known)) this.#waiting.set(key, urgency);
  }

  /** Takes the next one to be asked for, or undefined where none waits or none may run. */
  take(): Key | undefined {
    if (this.#running.size >= this.#concurrencyMax) return undefined;
    let first: Key | undefined;
    let highest: Urgency | undefined;
    for (const [key, urgency] of this.#waiting) {
      if (highest === undefined || isMoreUrgent(urgency, highest)) {
        first = key;
        highest = urgency;
      }
    }
    if (first === undefined) return undefined;
    this.#waiting.delete(first);
    this.#running.add(first);
    return first;
  }

  done(key: Key): void {
    this.#running.delete(key);
  }

  /** Gives up on one that waits. One that is running goes on. */
  drop(key: Key): void {
    this.#waiting.delete(key);
  }
}

function isMoreUrgent(left: Urgency, right: Urgency): boolean {
  return URGENCIES.indexOf(left) > URGENCIES.indexOf(right);
}
