import {
  addon,
  type NativeBpfLink,
  type NativeBpfMap,
  type NativeBpfObject,
  type NativeLinkInfo,
  naming,
} from "./addon.ts";
import type { Netns } from "./netns.ts";

export type LinkInfo = NativeLinkInfo;
export type ObjectCosts = ReturnType<NativeBpfObject["costs"]>;

/**
 * A compiled BPF object: open, set constants and pins, load, attach.
 *
 * Closing it leaves its programs where they are attached and its maps where they are pinned.
 */
export class BpfObject {
  readonly path: string;
  readonly #native: NativeBpfObject;

  /** @throws MeshError `KERNEL_CALL_FAILED` where `path` is no BPF object */
  constructor(path: string) {
    this.path = path;
    this.#native = naming(`open BPF object "${path}"`, () => new addon.BpfObject(path));
  }

  /** Sets a `const volatile` of the object. Before `load()`; `bytes` has exactly its size. */
  setConstant(name: string, bytes: Uint8Array): void {
    this.#naming(`set "${name}" of`, () => this.#native.setConstant(name, bytes));
  }

  /**
   * Before `load()`, which then takes the map that is pinned at `path`, or makes it and pins it.
   */
  setPinPath(map: string, path: string): void {
    this.#naming(`pin map "${map}" of`, () => this.#native.setPinPath(map, path));
  }

  /** Before `load()`. Of a ring buffer in bytes: a power of two, and whole pages. */
  setEntriesMax(map: string, entriesMax: number): void {
    this.#naming(`size map "${map}" of`, () => this.#native.setEntriesMax(map, entriesMax));
  }

  /**
   * Makes the maps and gives the programs to the verifier.
   *
   * @throws MeshError `KERNEL_CALL_FAILED`; its cause ends with the verifier's log
   */
  load(): void {
    this.#naming("load", () => this.#native.load());
  }

  /** What the kernel has spent on it. After `load()`. */
  costs(): ObjectCosts {
    return this.#naming("inspect", () => this.#native.costs());
  }

  openMap(name: string): BpfMap {
    return new BpfMap(
      name,
      this.#naming(`open map "${name}" of`, () => this.#native.openMap(name)),
    );
  }

  attachCgroup(program: string, cgroupPath: string): BpfLink {
    const native = naming(`attach "${program}" to cgroup "${cgroupPath}"`, () =>
      this.#native.attachCgroup(program, cgroupPath),
    );
    return new BpfLink(program, native);
  }

  attachNetns(program: string, netns: Netns): BpfLink {
    const native = naming(`attach "${program}" to network namespace "${netns.path}"`, () =>
      this.#native.attachNetns(program, netns.fd),
    );
    return new BpfLink(program, native);
  }

  /** Makes `link` run `program` of this object instead: no connection sees neither or both. */
  replaceProgram(link: BpfLink, program: string): void {
    this.#naming(`put "${program}" on link "${link.name}" from`, () =>
      link.native.update(this.#native, program),
    );
  }

  close(): void {
    this.#native.close();
  }

  #naming<Result>(verb: string, call: () => Result): Result {
    return naming(`${verb} BPF object "${this.path}"`, call);
  }
}

export interface HashSizes {
  readonly keyBytes: number;
  readonly valueBytes: number;
  readonly entriesMax: number;
}

/**
 * A BPF map, open until `close()`. It lives on for as long as it is pinned or a program uses it.
 */
export class BpfMap {
  readonly name: string;
  readonly #native: NativeBpfMap;

  constructor(name: string, native: NativeBpfMap) {
    this.name = name;
    this.#native = native;
  }

  /** @throws MeshError `KERNEL_CALL_FAILED` where no map is pinned at `path` */
  static openPinned(path: string): BpfMap {
    return new BpfMap(
      path,
      naming(`open map "${path}"`, () => new addon.BpfMap(path)),
    );
  }

  /** A new hash map, which lives for as long as it is open, or part of another map. */
  static makeHash(name: string, sizes: HashSizes): BpfMap {
    const { keyBytes, valueBytes, entriesMax } = sizes;
    return new BpfMap(
      name,
      naming(`make map "${name}"`, () => addon.makeHash(name, keyBytes, valueBytes, entriesMax)),
    );
  }

  /** Belongs to this object. As a value it puts this map into a map of maps. */
  get fd(): number {
    return this.#native.fd;
  }

  get keyBytes(): number {
    return this.#native.keyBytes;
  }

  /** For a per-CPU map the sum over all possible CPUs, each rounded up to 8 bytes. */
  get valueBytes(): number {
    return this.#native.valueBytes;
  }

  /** @returns the value of `key`, or undefined where the map has no such key */
  lookup(key: Uint8Array): Uint8Array | undefined {
    const value = new Uint8Array(this.valueBytes);
    return this.#naming(() => this.#native.lookup(key, value)) ? value : undefined;
  }

  update(key: Uint8Array, value: Uint8Array): void {
    this.#naming(() => this.#native.update(key, value));
  }

  /** @returns false where the map has no such key */
  delete(key: Uint8Array): boolean {
    return this.#naming(() => this.#native.delete(key));
  }

  /**
   * All keys. Those that come or go meanwhile may be missed or be listed twice; no more than twice
   * the map's capacity is read.
   */
  keys(): Uint8Array[] {
    return this.#naming(() => {
      const keys: Uint8Array[] = [];
      let previous: Uint8Array | null = null;
      const limit = 2 * this.#native.entriesMax;
      for (;;) {
        const next: Uint8Array = new Uint8Array(this.keyBytes);
        if (keys.length >= limit || !this.#native.nextKey(previous, next)) return keys;
        keys.push(next);
        previous = next;
      }
    });
  }

  close(): void {
    this.#native.close();
  }

  #naming<Result>(call: () => Result): Result {
    return naming(`use map "${this.name}"`, call);
  }
}

/**
 * The attachment of a program. Lasts until nothing holds it: neither a pin nor an open `BpfLink`.
 */
export class BpfLink {
  readonly name: string;
  readonly native: NativeBpfLink;

  constructor(name: string, native: NativeBpfLink) {
    this.name = name;
    this.native = native;
  }

  /** @throws MeshError `KERNEL_CALL_FAILED` where no link is pinned at `path` */
  static openPinned(path: string): BpfLink {
    return new BpfLink(
      path,
      naming(`open link "${path}"`, () => new addon.BpfLink(path)),
    );
  }

  info(): LinkInfo {
    return naming(`inspect link "${this.name}"`, () => this.native.info());
  }

  pin(path: string): void {
    naming(`pin link "${path}"`, () => this.native.pin(path));
  }

  /** Takes the program off at once, whatever pins the link has. */
  detach(): void {
    naming(`detach link "${this.name}"`, () => this.native.detach());
  }

  close(): void {
    this.native.close();
  }
}
