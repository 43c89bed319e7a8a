import { MeshError, reasonOf } from "#core/errors.ts";
import type { Logger } from "../log.ts";
import type { Timers } from "../timers.ts";
import { ABSENT, type Command, type Enrollment, next, type PodEvent } from "./enrollment.ts";
import type { Pod, PodUid } from "./pod.ts";
import type { PodStore, StoredPod } from "./pod-store.ts";

/** What the enrolment of a pod needs from the kernel and from the proxy. */
export interface PodHost<Netns extends OpenNetns, Proxy extends PodProxy> {
  /**
   * @returns undefined where nothing is at `path` (any more)
   * @throws MeshError for every other reason: a namespace that cannot be opened is not gone
   */
  openNetns(path: string): Netns | undefined;
  /** Captures the pod, listens for it, lets its traffic go. Owns `netns` from then on. */
  open(pod: StoredPod, netns: Netns): Proxy;
  /** Ends the capture of a pod, whether its namespace still exists or not. */
  release(uid: PodUid): void;
}

export interface OpenNetns {
  cookie(): bigint;
  close(): void;
}

export interface PodProxy {
  /** Stops listening. @returns a promise kept when what it accepted has ended, or at the limit */
  drain(limitMs: number): Promise<void>;
  /** Another process listens for the pod: as `drain()`, once nobody comes here any more. */
  retire(limitMs: number): Promise<void>;
  /** Sends the pod's new connections here again, after another process had them. */
  reclaim(): void;
}

export interface PodStatus {
  readonly pod: Pod;
  readonly state: "up" | "pending";
  readonly reason: string | undefined;
}

export interface EnrollmentOptions<Netns extends OpenNetns, Proxy extends PodProxy> {
  readonly host: PodHost<Netns, Proxy>;
  readonly store: PodStore;
  readonly timers: Timers;
  readonly log: Logger;
  readonly drainLimitMs: number;
  /** Called after each change of who is up or pending. */
  readonly onChange: () => void;
}

/** A pod in memory: where it stands, and what has to be let go of with it. */
interface Entry<Proxy> {
  state: Enrollment;
  proxy: Proxy | undefined;
  cancelRetry: (() => void) | undefined;
}

/** How opening a pod went. */
interface Outcome {
  readonly event: PodEvent;
  readonly failure?: MeshError;
}

/** Enrols the pods of this node, one call at a time, and brings back those of the last run. */
export class EnrollmentLoop<Netns extends OpenNetns, Proxy extends PodProxy> {
  readonly #options: EnrollmentOptions<Netns, Proxy>;
  readonly #entries = new Map<PodUid, Entry<Proxy>>();
  /** Proxies whose pods have left, until their connections have ended. */
  readonly #draining = new Set<Promise<void>>();
  /** Why no pod may change, where none may. */
  #refusal: string | undefined;

  constructor(options: EnrollmentOptions<Netns, Proxy>) {
    this.#options = options;
  }

  /**
   * Takes over the pods that an earlier agent has left on disk. One whose network namespace is gone
   * is forgotten; one that cannot be opened is tried again.
   *
   * @throws MeshError `OBJECT_INVALID` where the disk cannot be understood
   */
  restore(): void {
    for (const pod of this.#options.store.read()) {
      this.#entries.set(pod.uid, this.#newEntry({ phase: "pending", pod, reason: "restarted" }));
    }
    for (const uid of [...this.#entries.keys()]) this.#retry(uid);
  }

  /**
   * Enrols a pod, or confirms that it is.
   *
   * @throws MeshError `REQUEST_REFUSED` where there is no such network namespace,
   *   `KERNEL_CALL_FAILED` where the pod stays blocked and will be tried again
   */
  put(pod: Pod): void {
    const netnsCookie = this.#cookieOf(pod);
    this.#checkIsFree(pod.uid, netnsCookie);
    const id = this.#idFor(pod.uid);
    const failure = this.#handle(pod.uid, { kind: "put", pod: { ...pod, netnsCookie, id } });
    if (failure) throw failure;
  }

  /** Un-enrols a pod. Without effect where it is not known. */
  delete(uid: PodUid): void {
    this.#handle(uid, { kind: "deleted" });
  }

  list(): readonly PodStatus[] {
    return [...this.#entries.values()].flatMap(({ state }) => {
      if (state.phase === "absent") return [];
      const reason = state.phase === "pending" ? state.reason : undefined;
      return [{ pod: state.pod, state: state.phase, reason }];
    });
  }

  /** The pods that are up. */
  enrolled(): readonly StoredPod[] {
    return [...this.#entries.values()].flatMap(({ state }) =>
      state.phase === "up" ? [state.pod] : [],
    );
  }

  /** Of the pods that are up. */
  proxies(): readonly Proxy[] {
    return [...this.#entries.values()].flatMap(({ proxy }) => (proxy ? [proxy] : []));
  }

  isUpOrGone(uid: PodUid): boolean {
    return this.#entries.get(uid)?.state.phase !== "pending";
  }

  /**
   * Stops for good: drains every pod's proxy and leaves the captures in force, so that connections
   * are refused until an agent is back.
   */
  async close(limitMs: number): Promise<void> {
    this.pause("shutting down");
    for (const entry of this.#entries.values()) this.#drain(entry, limitMs);
    await Promise.all(this.#draining);
  }

  /** Changes nothing any more, in the kernel or on disk. Pods that are up are served on. */
  pause(reason: string): void {
    this.#refusal = reason;
    for (const entry of this.#entries.values()) entry.cancelRetry?.();
  }

  /** After `pause()` and a process that may have changed anything meanwhile. */
  resume(): void {
    this.#refusal = undefined;
    for (const [uid, { proxy, state }] of this.#entries) {
      try {
        proxy?.reclaim();
      } catch (error) {
        if (!(error instanceof MeshError)) throw error;
        this.#options.log.error({ pod: uid, error: reasonOf(error) }, "pod not taken back");
      }
      if (state.phase === "pending") this.#retry(uid);
    }
    this.#write();
  }

  /** After `pause()`: another process serves all pods. @returns when what is open here has ended */
  async retire(limitMs: number): Promise<void> {
    const proxies = this.proxies();
    await Promise.all([...proxies.map((proxy) => proxy.retire(limitMs)), ...this.#draining]);
  }

  /** @returns why the pod could not be opened, where it was tried and failed */
  #handle(uid: PodUid, event: PodEvent): MeshError | undefined {
    if (this.#refusal !== undefined) {
      throw new MeshError("REQUEST_REFUSED", `Cannot change pods: ${this.#refusal}`);
    }
    const entry = this.#entries.get(uid) ?? this.#newEntry(ABSENT);
    const queue: PodEvent[] = [event];
    let failure: MeshError | undefined;
    for (let current = queue.shift(); current !== undefined; current = queue.shift()) {
      const step = next(entry.state, current);
      for (const command of step.commands) {
        const outcome = this.#execute(uid, entry, step.state, command);
        if (outcome) queue.push(outcome.event);
        failure ??= outcome?.failure;
      }
      entry.state = step.state;
    }
    if (entry.state.phase === "absent") this.#entries.delete(uid);
    this.#options.onChange();
    return failure;
  }

  #execute(
    uid: PodUid,
    entry: Entry<Proxy>,
    after: Enrollment,
    command: Command,
  ): Outcome | undefined {
    const { host, drainLimitMs, log, timers } = this.#options;
    entry.cancelRetry?.();
    entry.cancelRetry = undefined;
    switch (command.kind) {
      case "remember":
        entry.state = after;
        this.#entries.set(uid, entry);
        this.#write();
        return undefined;
      case "open":
        return this.#open(entry, command.pod);
      case "drain":
        this.#drain(entry, drainLimitMs);
        return undefined;
      case "release":
        host.release(uid);
        log.info({ pod: uid }, "capture removed");
        return undefined;
      case "forget":
        this.#entries.delete(uid);
        this.#write();
        log.info({ pod: uid }, "pod forgotten");
        return undefined;
      case "retryAfter":
        entry.cancelRetry = timers.after(command.delayMs, () => this.#retry(uid));
        return undefined;
    }
  }

  #open(entry: Entry<Proxy>, pod: StoredPod): Outcome {
    const { host, log } = this.#options;
    const fields = { pod: pod.uid, name: pod.name, namespace: pod.namespace };
    try {
      const netns = host.openNetns(pod.netns);
      if (netns?.cookie() !== pod.netnsCookie) {
        netns?.close();
        const reason = "its network namespace is not there any more";
        throw new MeshError("KERNEL_CALL_FAILED", `Cannot open "${pod.netns}": ${reason}`);
      }
      entry.proxy = host.open(pod, netns);
      log.info(fields, "pod enrolled");
      return { event: { kind: "opened" } };
    } catch (error) {
      if (!(error instanceof MeshError)) throw error;
      const reason = reasonOf(error);
      if (error.code === "REQUEST_REFUSED") {
        log.warn({ ...fields, error: reason }, "pod refused");
        return { event: { kind: "openRefused" }, failure: error };
      }
      log.warn({ ...fields, error: reason }, "pod stays blocked");
      return { event: { kind: "openFailed", reason }, failure: error };
    }
  }

  /** A pod that waits and whose namespace has gone meanwhile will not come back under this uid. */
  #retry(uid: PodUid): void {
    const entry = this.#entries.get(uid);
    if (entry?.state.phase !== "pending") return;
    const { netns, netnsCookie } = entry.state.pod;
    try {
      const isGone = this.#cookieAt(netns) !== netnsCookie;
      this.#handle(uid, { kind: isGone ? "deleted" : "retryDue" });
    } catch (error) {
      if (!(error instanceof MeshError)) throw error;
      this.#options.log.error({ pod: uid, error: reasonOf(error) }, "pod not changed");
      this.#execute(uid, entry, entry.state, { kind: "retryAfter", delayMs: 5_000 });
    }
  }

  /** Undefined where there is no network namespace. */
  #cookieAt(path: string): bigint | undefined {
    const netns = this.#options.host.openNetns(path);
    const cookie = netns?.cookie();
    netns?.close();
    return cookie;
  }

  #drain(entry: Entry<Proxy>, limitMs: number): void {
    const { proxy } = entry;
    entry.proxy = undefined;
    if (!proxy) return;
    const drained = proxy.drain(limitMs).finally(() => this.#draining.delete(drained));
    this.#draining.add(drained);
  }

  #cookieOf(pod: Pod): bigint {
    const attempt = `Cannot enrol pod "${pod.uid}"`;
    try {
      const cookie = this.#cookieAt(pod.netns);
      if (cookie !== undefined) return cookie;
    } catch (cause) {
      if (!(cause instanceof MeshError)) throw cause;
      throw new MeshError("REQUEST_REFUSED", attempt, { cause });
    }
    const reason = `there is no network namespace at "${pod.netns}"`;
    throw new MeshError("REQUEST_REFUSED", `${attempt}: ${reason}`);
  }

  /** Before anything changes: a mistaken request must not un-enrol the pod that it names. */
  #checkIsFree(uid: PodUid, netnsCookie: bigint): void {
    const holder = this.#known().find((pod) => pod.netnsCookie === netnsCookie && pod.uid !== uid);
    if (holder === undefined) return;
    const reason = `its network namespace is that of pod "${holder.uid}"`;
    throw new MeshError("REQUEST_REFUSED", `Cannot enrol pod "${uid}": ${reason}`);
  }

  /** A pod keeps its number for as long as it is known; others get the smallest that is free. */
  #idFor(uid: PodUid): number {
    const ids = new Map(this.#known().map((pod) => [pod.uid, pod.id]));
    const own = ids.get(uid);
    if (own !== undefined) return own;
    const taken = new Set(ids.values());
    let id = 1;
    while (taken.has(id)) id++;
    return id;
  }

  #write(): void {
    this.#options.store.write(this.#known());
  }

  #known(): readonly StoredPod[] {
    return [...this.#entries.values()].flatMap(({ state }) =>
      state.phase === "absent" ? [] : [state.pod],
    );
  }

  #newEntry(state: Enrollment): Entry<Proxy> {
    return { state, proxy: undefined, cancelRetry: undefined };
  }
}
