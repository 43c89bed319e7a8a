import type { BpfMap } from "#native/kernel/index.ts";
import { decodePodConfig, encodePodConfig, encodeUint64, type PodConfig } from "./layout.ts";

/** A pod's entry in the map `pods`. */
export class PodEntry {
  /** Of its network namespace. */
  readonly cookie: bigint;
  readonly #pods: BpfMap;
  readonly #key: Uint8Array;

  constructor(pods: BpfMap, cookie: bigint) {
    this.cookie = cookie;
    this.#pods = pods;
    this.#key = encodeUint64(cookie);
  }

  read(): PodConfig | undefined {
    const bytes = this.#pods.lookup(this.#key);
    return bytes && decodePodConfig(bytes);
  }

  put(config: PodConfig): void {
    const generation = config.generation + 1n;
    this.#pods.update(this.#key, encodePodConfig({ ...config, generation }));
  }

  setBlocked(blocked: boolean): void {
    const entry = this.read();
    if (entry === undefined) throw new TypeError("pod is not enrolled any more");
    if (entry.blocked !== blocked) this.put({ ...entry, blocked });
  }

  remove(): void {
    this.#pods.delete(this.#key);
  }
}
