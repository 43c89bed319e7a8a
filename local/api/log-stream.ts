import { open } from "node:fs/promises";
import { Readable } from "node:stream";
import { setTimeout as delay } from "node:timers/promises";

export interface LogStreamOptions {
  /** Goes on with what is written later, until the stream is destroyed. */
  readonly follow: boolean;
  /** The last lines only; undefined for all. */
  readonly tail: number | undefined;
}

const CHUNK_BYTES = 64 * 1024;
const POLL_MS = 100;

/** A log as it is now. One that does not exist yet is empty. */
export async function openLogStream(path: string, options: LogStreamOptions): Promise<Readable> {
  const start = options.tail === undefined ? 0 : await offsetOfTail(path, options.tail);
  return Readable.from(readLog(path, start, options.follow), { objectMode: false });
}

async function* readLog(path: string, start: number, follow: boolean): AsyncGenerator<Buffer> {
  let offset = start;
  for (;;) {
    const chunk = await readAt(path, offset);
    // It was cut: what is there now has not been read.
    if (chunk === "beyond") offset = 0;
    else if (chunk.length > 0) {
      offset += chunk.length;
      yield chunk;
    } else if (!follow) return;
    else {
      yield Buffer.alloc(0);
      await delay(POLL_MS);
    }
  }
}

async function readAt(path: string, offset: number): Promise<Buffer | "beyond"> {
  const file = await open(path, "r").catch(() => undefined);
  if (file === undefined) return Buffer.alloc(0);
  try {
    if ((await file.stat()).size < offset) return "beyond";
    const buffer = Buffer.alloc(CHUNK_BYTES);
    const { bytesRead } = await file.read(buffer, 0, CHUNK_BYTES, offset);
    return buffer.subarray(0, bytesRead);
  } finally {
    await file.close();
  }
}

async function offsetOfTail(path: string, lines: number): Promise<number> {
  const file = await open(path, "r").catch(() => undefined);
  if (file === undefined) return 0;
  try {
    const content = await file.readFile();
    let end = content.length;
    for (let line = 0; line <= lines; line++) {
      const newline = content.lastIndexOf("\n", end - 1);
      if (newline < 0) return 0;
      if (line === lines) return newline + 1;
      end = newline;
    }
    return 0;
  } finally {
    await file.close();
  }
}
