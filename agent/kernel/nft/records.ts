/**
 * Which pods have rules, kept while no process runs: one file per pod, named by its uid. It is
 * written before the rules and removed after them.
 */
import { mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { MeshError } from "#core/errors.ts";

export interface PodRecord {
  readonly netnsPath: string;
  readonly cookie: bigint;
  readonly isBlocked: boolean;
}

const UID_PATTERN = /^[A-Za-z0-9_-]{1,128}$/;
const SUFFIX = ".json";

export class PodRecords {
  readonly #dir: string;
  readonly #bootId: string;

  /** @param bootId  of the running kernel: namespaces and cookies do not outlive it */
  constructor(dir: string, bootId: string) {
    this.#dir = dir;
    this.#bootId = bootId;
    mkdirSync(dir, { recursive: true, mode: 0o700 });
    for (const uid of this.#files()) {
      if (this.#parse(uid).bootId !== bootId) this.remove(uid);
    }
  }

  uids(): string[] {
    return this.#files();
  }

  read(uid: string): PodRecord | undefined {
    return this.#files().includes(uid) ? this.#parse(uid) : undefined;
  }

  write(uid: string, { netnsPath, cookie, isBlocked }: PodRecord): void {
    const path = this.#path(uid);
    const fields = { bootId: this.#bootId, netnsPath, cookie: String(cookie), isBlocked };
    writeFileSync(`${path}.new`, JSON.stringify(fields), { mode: 0o600 });
    renameSync(`${path}.new`, path);
  }

  remove(uid: string): void {
    rmSync(this.#path(uid), { force: true });
  }

  removeAll(): void {
    rmSync(this.#dir, { recursive: true, force: true });
  }

  #files(): string[] {
    const names = readdirSync(this.#dir).filter((name) => name.endsWith(SUFFIX));
    return names.map((name) => name.slice(0, -SUFFIX.length));
  }

  #path(uid: string): string {
    if (!UID_PATTERN.test(uid)) {
      const reason = "expected 1 to 128 letters, digits, - and _";
      throw new MeshError("REQUEST_REFUSED", `Cannot use pod uid "${uid}": ${reason}`);
    }
    return join(this.#dir, `${uid}${SUFFIX}`);
  }

  #parse(uid: string): PodRecord & { readonly bootId: string } {
    const path = this.#path(uid);
    try {
      const value = JSON.parse(readFileSync(path, "utf8")) as Record<string, unknown>;
      const { bootId, netnsPath, cookie, isBlocked } = value;
      if (typeof bootId !== "string") throw new TypeError("bootId is not a text");
      if (typeof netnsPath !== "string") throw new TypeError("netnsPath is not a text");
      if (typeof isBlocked !== "boolean") throw new TypeError("isBlocked is not true or false");
      return { bootId, netnsPath, cookie: BigInt(String(cookie)), isBlocked };
    } catch (error) {
      throw new MeshError("OBJECT_INVALID", `Cannot read "${path}"`, { cause: error });
    }
  }
}
