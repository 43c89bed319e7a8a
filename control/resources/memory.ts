import { chmodSync, rmSync } from "node:fs";
import path from "node:path";
import { DatabaseSync } from "node:sqlite";
import { reasonOf } from "#core/errors.ts";
import { keyOfId, type ObjectId, type RawObject } from "../source/source.ts";

/** Which objects to remember, as a whole, and which to forget. */
export interface MemoryChange {
  readonly good: readonly RawObject[];
  readonly gone: readonly ObjectId[];
}

/** Says that something is not remembered, which takes nothing out of force now. */
type OnTrouble = (reason: string) => void;

const SCHEMA = `
  PRAGMA journal_mode = WAL;
  PRAGMA synchronous = NORMAL;
  PRAGMA busy_timeout = 1000;
  CREATE TABLE IF NOT EXISTS objects (
    key TEXT PRIMARY KEY,
    api_version TEXT NOT NULL,
    value TEXT NOT NULL,
    file TEXT NOT NULL,
    line INTEGER NOT NULL
  ) STRICT;
`;

/**
 * The last good version of every object, kept across restarts: control that starts while somebody
 * is half through an edit goes on with what was in force before it.
 *
 * It is a help and nothing depends on it. Where it cannot be read or written, objects that cannot
 * be understood are treated as if they were new.
 *
 * @see docs/decisions/0009-objects-that-cannot-be-understood.md
 */
export class ObjectMemory {
  readonly #onTrouble: OnTrouble;
  #database: DatabaseSync | undefined;

  /** @param folder  a folder for the owner alone: objects may hold what others should not see */
  constructor(folder: string, onTrouble: OnTrouble) {
    this.#onTrouble = onTrouble;
    const file = path.join(folder, "objects.sqlite");
    try {
      this.#database = openDatabase(file);
    } catch (error) {
      onTrouble(`Cannot use "${file}", starting anew: ${reasonOf(error)}`);
      this.#database = this.#attempt("make a new memory", () => {
        for (const suffix of ["", "-wal", "-shm"]) rmSync(`${file}${suffix}`, { force: true });
        return openDatabase(file);
      });
    }
  }

  all(): readonly RawObject[] {
    return this.#select("SELECT * FROM objects ORDER BY file, line");
  }

  get(id: ObjectId): RawObject | undefined {
    return this.#select("SELECT * FROM objects WHERE key = ?", keyOfId(id))[0];
  }

  update({ good, gone }: MemoryChange): void {
    const database = this.#database;
    if (!database || good.length + gone.length === 0) return;
    this.#attempt("remember objects", () => {
      const put = database.prepare("INSERT OR REPLACE INTO objects VALUES (?, ?, ?, ?, ?)");
      const remove = database.prepare("DELETE FROM objects WHERE key = ?");
      database.exec("BEGIN");
      try {
        for (const id of gone) remove.run(keyOfId(id));
        for (const { id, apiVersion, value, origin } of good) {
          put.run(keyOfId(id), apiVersion, JSON.stringify(value), origin.file, origin.line);
        }
        database.exec("COMMIT");
      } catch (error) {
        database.exec("ROLLBACK");
        throw error;
      }
    });
  }

  close(): void {
    this.#database?.close();
    this.#database = undefined;
  }

  #select(sql: string, ...parameters: string[]): readonly RawObject[] {
    const database = this.#database;
    if (!database) return [];
    const rows = this.#attempt("recall objects", () =>
      database
        .prepare(sql)
        .all(...parameters)
        .map(rawObjectOf),
    );
    return rows ?? [];
  }

  #attempt<Value>(what: string, work: () => Value): Value | undefined {
    try {
      return work();
    } catch (error) {
      this.#onTrouble(`Cannot ${what}: ${reasonOf(error)}`);
      return undefined;
    }
  }
}

function openDatabase(file: string): DatabaseSync {
  const database = new DatabaseSync(file);
  try {
    // The files that SQLite puts beside it get the same mode.
    chmodSync(file, 0o600);
    database.exec(SCHEMA);
    return database;
  } catch (error) {
    database.close();
    throw error;
  }
}

/** The columns are those of the schema, which is STRICT. */
function rawObjectOf(row: Readonly<Record<string, unknown>>): RawObject {
  const { key, api_version: apiVersion, value, file } = row as Readonly<Record<string, string>>;
  const [group = "", kind = "", namespace = "", name = ""] = key?.split("\n") ?? [];
  const line = Number(row["line"]);
  return {
    id: { group, kind, namespace, name },
    apiVersion: apiVersion ?? "",
    value: JSON.parse(value ?? "null"),
    origin: { file: file ?? "", line },
    // Its text is gone; what is known is where it stood.
    lineOf: () => line,
  };
}
