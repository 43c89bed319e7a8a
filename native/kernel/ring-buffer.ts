import { addon, type NativeRingBuffer, naming } from "./addon.ts";

/**
 * The consuming end of a pinned BPF ring buffer, open until `close()`.
 *
 * A ring has one consumer at a time: two would write each other's position, and each would miss
 * what the other has read. So whoever hands over closes first; nothing that is in the ring is lost
 * by that.
 */
export class RingBuffer {
  readonly path: string;
  readonly #native: NativeRingBuffer;

  /** @throws MeshError `KERNEL_CALL_FAILED` where no ring is pinned at `path` */
  constructor(path: string) {
    this.path = path;
    this.#native = naming(`open ring buffer "${path}"`, () => new addon.RingBuffer(path));
  }

  /**
   * Takes everything that is there, copied out so that the kernel has its space back.
   *
   * @returns records of `recordBytes` bytes, one after the other; undefined where there is none
   */
  drain(recordBytes: number): DataView | undefined {
    const batch = this.#naming(() => this.#native.drain(recordBytes));
    return batch === null ? undefined : new DataView(batch);
  }

  /** How many records had another size than was asked for, and were left out. */
  get foreignRecords(): number {
    return this.#native.foreignRecords();
  }

  /**
   * Calls `onWoken` whenever a producer wakes its consumer. Once; does not keep the process alive.
   */
  watch(onWoken: () => void): void {
    this.#naming(() => this.#native.watch(onWoken));
  }

  close(): void {
    this.#native.close();
  }

  #naming<Result>(call: () => Result): Result {
    return naming(`use ring buffer "${this.path}"`, call);
  }
}
