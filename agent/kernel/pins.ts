/**
 * Where the kernel's things are kept while no process holds them:
 *
 *   <pinDir>/maps/<map>                 shared by all programs
 *   <pinDir>/links/<program>            on the agent's cgroup
 *   <pinDir>/pods/<uid>/netns-<cookie>  a directory, so that a dead pod's entry can be found
 *   <pinDir>/pods/<uid>/listeners       the pod's own SOCKMAP
 *   <pinDir>/pods/<uid>/lookup          link on the pod's network namespace
 *   <pinDir>/pods/<uid>/strict          link on the pod's cgroup, where egress is strict
 *
 * A BPF file system refuses names with a dot.
 */
import { existsSync, mkdirSync, readdirSync, rmdirSync, statfsSync, unlinkSync } from "node:fs";
import { dirname, join } from "node:path";
import { MeshError } from "#core/errors.ts";
import { BpfLink, ensureBpffs } from "#native/kernel/index.ts";

/** Where systemd and everybody else mounts it. */
const BPFFS_ROOT = "/sys/fs/bpf";
/** linux/magic.h */
const BPF_FS_MAGIC = 0xcafe4a11;
/** Whoever can open a pinned map owns the policy. */
const OWNER_ONLY = 0o700;
const COOKIE_PREFIX = "netns-";
const UID_PATTERN = /^[A-Za-z0-9_-]{1,128}$/;

export class Pins {
  readonly #dir: string;

  /** @throws MeshError `SETTINGS_INVALID` where `dir` cannot hold pins */
  constructor(dir: string) {
    this.#dir = dir;
    if (!dir.startsWith("/") || dir.includes(".")) {
      const reason = "expected an absolute path without a dot";
      throw new MeshError("SETTINGS_INVALID", `Cannot keep pins in "${dir}": ${reason}`);
    }
    if (dir.startsWith(`${BPFFS_ROOT}/`)) ensureBpffs(BPFFS_ROOT);
    if (statfsSync(existingPartOf(dir)).type !== BPF_FS_MAGIC) {
      const reason = "not on a BPF file system";
      throw new MeshError("SETTINGS_INVALID", `Cannot keep pins in "${dir}": ${reason}`);
    }
    for (const part of ["maps", "links", "pods"]) makeDir(join(dir, part));
  }

  map(name: string): string {
    return join(this.#dir, "maps", name);
  }

  link(program: string): string {
    return join(this.#dir, "links", program);
  }

  pod(uid: string): PodPins {
    return new PodPins(join(this.#dir, "pods"), uid);
  }

  uids(): string[] {
    return readdirSync(join(this.#dir, "pods"));
  }

  /** Removes maps and links, then the directory, and those above it that this leaves empty. */
  removeAll(): void {
    for (const uid of this.uids()) this.pod(uid).remove();
    removeLinks(join(this.#dir, "links"));
    removeFiles(join(this.#dir, "maps"));
    for (const part of ["maps", "links", "pods"]) rmdirSync(join(this.#dir, part));
    // Not always empty: an agent with a part of the cgroup tree has its pins below another's.
    for (let dir = this.#dir; isEmptyBelowRoot(dir); dir = dirname(dir)) rmdirSync(dir);
  }
}

export class PodPins {
  readonly #dir: string;

  /** @throws MeshError `REQUEST_REFUSED` where `uid` cannot be a file name here */
  constructor(podsDir: string, uid: string) {
    if (!UID_PATTERN.test(uid)) {
      const reason = "expected 1 to 128 letters, digits, - and _";
      throw new MeshError("REQUEST_REFUSED", `Cannot use pod uid "${uid}": ${reason}`);
    }
    this.#dir = join(podsDir, uid);
  }

  get listeners(): string {
    return join(this.#dir, "listeners");
  }

  get lookup(): string {
    return join(this.#dir, "lookup");
  }

  get strict(): string {
    return join(this.#dir, "strict");
  }

  /** The cookie of the pod's network namespace; undefined where there are no pins yet. */
  cookie(): bigint | undefined {
    if (!existsSync(this.#dir)) return undefined;
    const name = readdirSync(this.#dir).find((entry) => entry.startsWith(COOKIE_PREFIX));
    return name === undefined ? undefined : BigInt(name.slice(COOKIE_PREFIX.length));
  }

  make(cookie: bigint): void {
    makeDir(join(this.#dir, `${COOKIE_PREFIX}${cookie}`));
  }

  /** Detaches the link, whoever else holds it, and removes the pins. Does nothing twice. */
  remove(): void {
    if (!existsSync(this.#dir)) return;
    for (const link of [this.lookup, this.strict]) detachPinned(link);
    // The cookie goes last: until then an interrupted removal can be taken up again.
    for (const file of [this.lookup, this.strict, this.listeners]) {
      if (existsSync(file)) unlinkSync(file);
    }
    for (const entry of readdirSync(this.#dir)) rmdirSync(join(this.#dir, entry));
    rmdirSync(this.#dir);
  }
}

function detachPinned(path: string): void {
  if (!existsSync(path)) return;
  const link = BpfLink.openPinned(path);
  try {
    link.detach();
  } finally {
    link.close();
  }
}

function removeLinks(dir: string): void {
  for (const name of readdirSync(dir)) detachPinned(join(dir, name));
  removeFiles(dir);
}

function removeFiles(dir: string): void {
  for (const name of readdirSync(dir)) unlinkSync(join(dir, name));
}

function makeDir(path: string): void {
  mkdirSync(path, { recursive: true, mode: OWNER_ONLY });
}

function existingPartOf(path: string): string {
  return existsSync(path) ? path : existingPartOf(dirname(path));
}

/** Whether `dir` is empty, and not the root of its BPF file system. */
function isEmptyBelowRoot(dir: string): boolean {
  return statfsSync(dirname(dir)).type === BPF_FS_MAGIC && readdirSync(dir).length === 0;
}
