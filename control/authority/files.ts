/** The authority's files: who may read them, and how they come about. */
import { randomUUID } from "node:crypto";
import { link, mkdir, open, readFile, rm, stat } from "node:fs/promises";
import { dirname, join } from "node:path";
import { MeshError, reasonOf } from "#core/errors.ts";

/** What a key may not have: any right of others, and the group's to change it. */
const MODE_TOO_OPEN = 0o037;
const WRITABLE_BY_STRANGERS = 0o022;

/** Makes the directory for its owner alone, or looks whether strangers can change what is in it. */
export async function preparePrivateDirectory(directory: string): Promise<void> {
  await refusing(`use directory "${directory}"`, async () => {
    await mkdir(directory, { recursive: true, mode: 0o700 });
    const { mode } = await stat(directory);
    if ((mode & WRITABLE_BY_STRANGERS) !== 0) {
      throw new RangeError(
        `others than its owner can write to it (mode ${octal(mode)}, want 0700)`,
      );
    }
  });
}

/** The text of a file, undefined where there is none. */
export async function readOptional(path: string): Promise<string | undefined> {
  return await refusing(`read "${path}"`, async () => {
    try {
      return await readFile(path, "utf8");
    } catch (error) {
      if (error instanceof Error && "code" in error && error.code === "ENOENT") return undefined;
      throw error;
    }
  });
}

/** As `readOptional()`, for a private key: a file that strangers can read is refused. */
export async function readOptionalKey(path: string): Promise<string | undefined> {
  const text = await readOptional(path);
  if (text === undefined) return undefined;
  return await refusing(`use key "${path}"`, async () => {
    const { mode } = await stat(path);
    if ((mode & MODE_TOO_OPEN) !== 0) {
      const reason = `others can read it (mode ${octal(mode)}, want 0600)`;
      throw new RangeError(`${reason}: take it for known, replace it, and set its mode`);
    }
    return text;
  });
}

/**
 * Makes a file with its whole content at once, so that nobody ever reads half of it.
 *
 * @returns false where there was one already, which then stays as it is
 */
export async function createFile(path: string, text: string, mode: number): Promise<boolean> {
  return await refusing(`write "${path}"`, async () => {
    const draft = join(dirname(path), `.${randomUUID()}.tmp`);
    try {
      const file = await open(draft, "wx", mode);
      try {
        await file.writeFile(text);
        await file.sync();
      } finally {
        await file.close();
      }
      // Unlike rename(), this fails where another process was faster.
      await link(draft, path);
      return true;
    } catch (error) {
      if (error instanceof Error && "code" in error && error.code === "EEXIST") return false;
      throw error;
    } finally {
      await rm(draft, { force: true });
    }
  });
}

async function refusing<Value>(what: string, work: () => Promise<Value>): Promise<Value> {
  try {
    return await work();
  } catch (error) {
    throw new MeshError("SETTINGS_INVALID", `Cannot ${what}: ${reasonOf(error)}`);
  }
}

function octal(mode: number): string {
  return `0${(mode & 0o777).toString(8)}`;
}
