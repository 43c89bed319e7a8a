import { closeSync, openSync } from "node:fs";
import { copyFile, rm, stat, truncate } from "node:fs/promises";

/** A log is cut at this size; the part before is kept once, as `….1`. */
export const LOG_BYTES_MAX = 8 * 1024 * 1024;

/**
 * Opens a log for a process to write to by itself.
 *
 * A real file, not a pipe through us: programs open /dev/stdout anew, which a pipe of Node's (a
 * socket) does not allow, and they go on writing while the runtime is busy. It is appended to, so
 * that a cut moves the writer back to the beginning.
 *
 * @returns a descriptor for `stdio`, and the way to close it once the process has its copy
 */
export function openLog(path: string): { readonly fd: number; close(): void } {
  const fd = openSync(path, "a", 0o640);
  return { fd, close: () => closeSync(fd) };
}

/** Cuts the log where it is too long. What is written between copy and cut is lost. */
export async function cutLog(path: string): Promise<void> {
  const { size } = await stat(path);
  if (size <= LOG_BYTES_MAX) return;
  await copyFile(path, `${path}.1`);
  await truncate(path, 0);
}

export async function removeLog(path: string): Promise<void> {
  await Promise.all([rm(path, { force: true }), rm(`${path}.1`, { force: true })]);
}
