import { open, rename, rm } from "node:fs/promises";

export interface WriteOptions {
  readonly mode?: number;
}

let writes = 0;

/** Whoever reads the file sees all of the old text or all of the new. */
export async function writeWhole(
  path: string,
  text: string,
  { mode = 0o644 }: WriteOptions = {},
): Promise<void> {
  // Not the ending of the file itself: who watches a folder for it must not see the half.
  const draft = `${path}.${process.pid}-${writes++}.draft`;
  const file = await open(draft, "wx", mode);
  try {
    await file.writeFile(text);
  } finally {
    await file.close();
  }
  try {
    await rename(draft, path);
  } catch (error) {
    await rm(draft, { force: true });
    throw error;
  }
}
