/**
 * What a runtime has made on the host, written down before it is made, so that whoever comes after
 * a kill -9 knows what to remove.
 */
import { readFile } from "node:fs/promises";
import { reasonOf } from "#core/errors.ts";
import { writeWhole } from "./files.ts";

export interface Remains {
  readonly netns: readonly string[];
  readonly cgroups: readonly string[];
  /** Folders on a BPF file system. */
  readonly pinDirs: readonly string[];
}

const KINDS = ["netns", "cgroups", "pinDirs"] as const;

export const NOTHING: Remains = { netns: [], cgroups: [], pinDirs: [] };

export class Ledger {
  readonly #path: string;
  readonly #entries = {
    netns: new Set<string>(),
    cgroups: new Set<string>(),
    pinDirs: new Set<string>(),
  };
  #written: Promise<void> = Promise.resolve();
  #next: Promise<void> | undefined;

  constructor(path: string) {
    this.#path = path;
  }

  /** Resolves once it is on disk: make the things after that. */
  async add(things: Partial<Remains>): Promise<void> {
    for (const kind of KINDS) {
      for (const thing of things[kind] ?? []) this.#entries[kind].add(thing);
    }
    await this.#write();
  }

  /** After the things are gone. */
  async remove(things: Partial<Remains>): Promise<void> {
    for (const kind of KINDS) {
      for (const thing of things[kind] ?? []) this.#entries[kind].delete(thing);
    }
    await this.#write();
  }

  get remains(): Remains {
    const { netns, cgroups, pinDirs } = this.#entries;
    return { netns: [...netns], cgroups: [...cgroups], pinDirs: [...pinDirs] };
  }

  /** Those who come while a write is under way share the next one. */
  #write(): Promise<void> {
    this.#next ??= this.#written
      .catch(() => undefined) // reported to those who waited for that write
      .then(() => {
        this.#next = undefined;
        const text = `${JSON.stringify({ pid: process.pid, ...this.remains }, null, 2)}\n`;
        return writeWhole(this.#path, text, { mode: 0o600 });
      });
    this.#written = this.#next;
    return this.#written;
  }
}

/**
 * @returns what a ledger names; nothing where there is none
 * @throws SyntaxError where it cannot be read, with its path
 */
export async function readLedger(path: string): Promise<Remains> {
  try {
    const text = await readFile(path, "utf8");
    // Our own file; whatever else may be in it is refused just below.
    const value = JSON.parse(text) as Partial<Record<keyof Remains, unknown>>;
    const [netns = [], cgroups = [], pinDirs = []] = KINDS.map((kind) => textsOf(value[kind]));
    return { netns, cgroups, pinDirs };
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "ENOENT") return NOTHING;
    throw new SyntaxError(`Cannot read "${path}": ${reasonOf(error)}`);
  }
}

function textsOf(value: unknown): readonly string[] {
  if (!Array.isArray(value) || !value.every((item) => typeof item === "string")) {
    throw new SyntaxError("it is not the ledger of a runtime");
  }
  return value;
}
