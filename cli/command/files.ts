import { readdir, readFile, stat } from "node:fs/promises";
import { join, resolve } from "node:path";
import { text } from "node:stream/consumers";
import { MeshError, reasonOf } from "#core/errors.ts";
import type { FileText } from "../local-api.ts";

/**
 * Files as they are named, those of folders that end as YAML does, and `-` for standard input.
 *
 * @throws MeshError `COMMAND_FAILED` where one cannot be read, or none is named
 */
export async function readFiles(paths: readonly string[]): Promise<readonly FileText[]> {
  const files: FileText[] = [];
  for (const path of paths) {
    try {
      files.push(...(await readPath(path)));
    } catch (cause) {
      throw new MeshError("COMMAND_FAILED", `Cannot read "${path}"`, { cause: reasonOf(cause) });
    }
  }
  return files;
}

async function readPath(path: string): Promise<readonly FileText[]> {
  if (path === "-") return [{ path: resolve("stdin"), text: await text(process.stdin) }];
  const absolute = resolve(path);
  if (!(await stat(absolute)).isDirectory()) {
    return [{ path: absolute, text: await readFile(absolute, "utf8") }];
  }
  const names = (await readdir(absolute)).filter((name) => /\.ya?ml$/.test(name)).toSorted();
  return Promise.all(
    names.map(async (name) => {
      const file = join(absolute, name);
      return { path: file, text: await readFile(file, "utf8") };
    }),
  );
}
