import { randomBytes } from "node:crypto";
import { chmodSync, renameSync, rmSync } from "node:fs";
import { dirname, join } from "node:path";

/**
 * Makes a socket under a name of its own, which then replaces whatever is at `path`: nobody finds
 * the path without a listener, and a listener that was there before does not remove the new one
 * when it closes.
 *
 * @param listen  on the name that it is given
 */
export async function listenInPlace(
  path: string,
  listen: (temporary: string) => Promise<unknown>,
): Promise<void> {
  const temporary = join(dirname(path), `.${randomBytes(4).toString("hex")}`);
  await listen(temporary);
  try {
    chmodSync(temporary, 0o600);
    renameSync(temporary, path);
  } catch (error) {
    rmSync(temporary, { force: true });
    throw error;
  }
}
