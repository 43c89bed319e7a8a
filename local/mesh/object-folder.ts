/** The folder that the control server watches. */
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { writeWhole } from "../state/files.ts";
import type { ObjectFiles } from "./manifests.ts";

export class ObjectFolder {
  readonly #dir: string;
  #written = new Map<string, string>();

  constructor(dir: string) {
    this.#dir = dir;
  }

  /** Writes what changed, then removes what vanished. One call at a time. */
  async write(files: ObjectFiles): Promise<void> {
    for (const [name, { text }] of files) {
      if (this.#written.get(name) === text) continue;
      await writeWhole(join(this.#dir, name), text);
      this.#written.set(name, text);
    }
    for (const name of this.#written.keys()) {
      if (files.has(name)) continue;
      await rm(join(this.#dir, name), { force: true });
      this.#written.delete(name);
    }
  }
}
