import { isDeepStrictEqual } from "node:util";
import type { Problem, ProblemEffect } from "../source/problem.ts";
import {
  formatId,
  formatPath,
  keyOfId,
  type RawObject,
  type SourceChange,
} from "../source/source.ts";
import type { Mistake } from "./field.ts";
import { type Interpretation, interpret } from "./interpret.ts";
import type { ObjectMemory } from "./memory.ts";
import type { MeshObject, Placed } from "./objects.ts";
import type { InterpretSettings } from "./reading.ts";

/** All objects in force of each kind, by namespace and name. */
export type MeshObjects = {
  readonly [Kind in MeshObject["kind"]]: ReadonlyMap<
    string,
    Placed<Extract<MeshObject, { kind: Kind }>>
  >;
};

interface Entry {
  readonly inForce: Placed | undefined;
  /** Whether what is in force was once written so, rather than put in the place of what was. */
  readonly isGood: boolean;
  readonly problems: readonly Problem[];
}

/**
 * Keeps what is in force of every object the source has told of: its newest version, or the last
 * one that could be understood. An object that did not change in a way that matters to the mesh
 * stays the same reference.
 */
export class ObjectRegister {
  readonly #settings: InterpretSettings;
  readonly #memory: ObjectMemory | undefined;
  readonly #entries = new Map<string, Entry>();
  readonly #shelves = emptyShelves();
  #sourceProblems: readonly Problem[] = [];

  /** @param memory  of the last good versions from before this process */
  constructor(settings: InterpretSettings, memory?: ObjectMemory) {
    this.#settings = settings;
    this.#memory = memory;
  }

  /** In the order in which they first came, which is how ties between them are settled. */
  get objects(): MeshObjects {
    return this.#shelves;
  }

  get problems(): readonly Problem[] {
    return [
      ...this.#sourceProblems,
      ...[...this.#entries.values()].flatMap(({ problems }) => problems),
    ];
  }

  apply(change: SourceChange): void {
    this.#sourceProblems = change.problems;
    for (const id of change.deleted) this.#put(keyOfId(id), undefined);
    const good: RawObject[] = [];
    for (const raw of change.upserted) {
      const key = keyOfId(raw.id);
      const interpretation = interpret(raw, this.#settings);
      const isRefused = interpretation.kind === "refused";
      const previous = this.#entries.get(key) ?? (isRefused ? this.#recall(raw) : undefined);
      this.#put(key, entryOf(raw, interpretation, previous));
      if (!isRefused) good.push(raw);
    }
    this.#memory?.update({ good, gone: change.deleted });
  }

  /** The object as it was in force before this process, where that was good. */
  #recall({ id }: RawObject): Entry | undefined {
    const raw = this.#memory?.get(id);
    if (!raw) return undefined;
    const interpretation = interpret(raw, this.#settings);
    if (interpretation.kind === "refused") return undefined;
    return entryOf(raw, interpretation, undefined);
  }

  #put(key: string, entry: Entry | undefined): void {
    const before = this.#entries.get(key)?.inForce;
    if (entry) this.#entries.set(key, entry);
    else this.#entries.delete(key);
    if (entry?.inForce)
      shelfOf(this.#shelves, entry.inForce).set(nameOf(entry.inForce), entry.inForce);
    else if (before) shelfOf(this.#shelves, before).delete(nameOf(before));
  }
}

function entryOf(raw: RawObject, next: Interpretation, previous: Entry | undefined): Entry {
  switch (next.kind) {
    case "understood": {
      const problems = problemsOf(raw, next.remarks, "partly", "");
      return { inForce: place(raw, next.object, previous), isGood: true, problems };
    }
    case "refused": {
      if (previous?.isGood && previous.inForce) {
        const consequence = "the last good version stays in force";
        const problems = problemsOf(raw, next.mistakes, "lastGood", consequence);
        return { inForce: previous.inForce, isGood: true, problems };
      }
      const { effect, consequence } = effectOf(next.substitute);
      const problems = problemsOf(raw, next.mistakes, effect, consequence);
      const inForce = next.substitute && place(raw, next.substitute, previous);
      return { inForce, isGood: false, problems };
    }
  }
}

function place(raw: RawObject, object: MeshObject, previous: Entry | undefined): Placed {
  const known = previous?.inForce?.object;
  return {
    object: known && isDeepStrictEqual(known, object) ? known : object,
    origin: raw.origin,
    lineOf: (path) => raw.lineOf(path),
  };
}

function effectOf(substitute: MeshObject | undefined): {
  effect: ProblemEffect;
  consequence: string;
} {
  switch (substitute?.kind) {
    case "AuthorizationPolicy": {
      const { action, dryRun } = substitute.policy;
      if (dryRun) return { effect: "ignored", consequence: "as a dry run it has no effect" };
      const what =
        action === "allow"
          ? "until it is mended it allows nothing to the workloads it selects"
          : "until it is mended it denies every connection to the workloads it selects";
      return { effect: "failsClosed", consequence: what };
    }
    case "PeerAuthentication": {
      const consequence = "until it is mended the workloads it selects take no plaintext";
      return { effect: "failsClosed", consequence };
    }
    default:
      return { effect: "ignored", consequence: "the object has no effect" };
  }
}

function problemsOf(
  raw: RawObject,
  mistakes: readonly Mistake[],
  effect: ProblemEffect,
  consequence: string,
): readonly Problem[] {
  return mistakes.map(({ path, reason }) => ({
    origin: { file: raw.origin.file, line: raw.lineOf(path) },
    object: formatId(raw.id),
    field: path.length === 0 ? undefined : formatPath(path),
    reason: consequence === "" ? reason : `${reason}; ${consequence}`,
    effect,
  }));
}

type Shelves = {
  readonly [Kind in MeshObject["kind"]]: Map<string, Placed<Extract<MeshObject, { kind: Kind }>>>;
};

function emptyShelves(): Shelves {
  return {
    Namespace: new Map(),
    Node: new Map(),
    ServiceAccount: new Map(),
    Pod: new Map(),
    Service: new Map(),
    EndpointSlice: new Map(),
    AuthorizationPolicy: new Map(),
    PeerAuthentication: new Map(),
  };
}

/** The shelf holds objects of the very kind that chose it, which the compiler cannot see. */
function shelfOf(shelves: Shelves, { object }: Placed): Map<string, Placed> {
  return shelves[object.kind] as Map<string, Placed>;
}

function nameOf({ object: { namespace, name } }: Placed): string {
  return `${namespace}/${name}`;
}
