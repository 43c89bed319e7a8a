/**
 * How bytes are read from plain sockets: into memory of ours, instead of 64 KiB that Node allocates
 * for every read.
 *
 * A socket that is idle, or whose reads are short, shares one buffer with all the others: each read
 * is copied out of it, to its size. One that fills a buffer is in the middle of something long. It
 * then reads into whole buffers of its own, which go round without being copied or collected, until
 * a read is short again. With four long connections the process takes 115 MiB instead of 160, and
 * the same CPU per byte; buffers of 128 KiB cost more of it.
 */
import type { OnReadOpts } from "node:net";

const BUFFER_BYTES = 64 * 1024;

/** Buffers that are kept for the next long read: 4 MiB. Those beyond are left to be collected. */
const FREE_MAX = 64;

/** Receives a chunk, and calls `written` when it needs the memory no more, at the latest. */
export type OnChunk = (chunk: Buffer, written?: (error?: Error | null) => void) => void;

/** Shared by the sockets of one engine. */
export class ReadBuffers {
  readonly shared = Buffer.allocUnsafeSlow(BUFFER_BYTES);
  readonly #free: Buffer[] = [];

  take(): Buffer {
    return this.#free.pop() ?? Buffer.allocUnsafeSlow(BUFFER_BYTES);
  }

  give(buffer: Buffer): void {
    if (this.#free.length < FREE_MAX) this.#free.push(buffer);
  }
}

/** Reads one socket, which is made with the option `onread` of this. */
export class SocketReader {
  onChunk: OnChunk = () => {};
  readonly onread: OnReadOpts;
  readonly #buffers: ReadBuffers;
  /** What the next read goes into, where it is not the shared buffer. */
  #own: Buffer | undefined;

  constructor(buffers: ReadBuffers) {
    this.#buffers = buffers;
    this.onread = {
      buffer: () => this.#own ?? buffers.shared,
      callback: (length, buffer) => this.#read(length, buffer.length),
    };
  }

  #read(length: number, capacity: number): boolean {
    const own = this.#own;
    this.#own = length === capacity ? this.#buffers.take() : undefined;
    if (own) {
      this.onChunk(own.subarray(0, length), (error) => {
        // After an error the memory may still be on its way out, in a frame of a stream that is
        // gone. What comes next must not get into it.
        if (!error) this.#buffers.give(own);
      });
    } else {
      this.onChunk(Buffer.from(this.#buffers.shared.subarray(0, length)));
    }
    // Whether to go on reading is up to pause() and resume().
    return true;
  }
}
