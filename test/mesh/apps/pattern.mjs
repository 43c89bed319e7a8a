// An endless stream of bytes that depends on a seed alone, so that both ends can make it.
import { createCipheriv, createHash } from "node:crypto";

const ZEROS = Buffer.alloc(64 * 1024);

export class Pattern {
  #cipher;
  #rest = Buffer.alloc(0);

  constructor(seed) {
    const key = createHash("sha256").update(seed).digest().subarray(0, 16);
    this.#cipher = createCipheriv("aes-128-ctr", key, Buffer.alloc(16));
  }

  /** The next `length` bytes. */
  next(length) {
    const parts = [this.#rest];
    for (let have = this.#rest.length; have < length; have += ZEROS.length) {
      parts.push(this.#cipher.update(ZEROS));
    }
    const all = Buffer.concat(parts);
    this.#rest = all.subarray(length);
    return all.subarray(0, length);
  }
}
