/**
 * The enrolled pods on disk, so that an agent that was killed takes them over again without help.
 *
 * A pod is written before its capture begins and taken out after it ended: whoever is captured can
 * be found here.
 */
import {
  closeSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readFileSync,
  renameSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { MeshError } from "#core/errors.ts";
import { parseIp } from "#core/ip.ts";
import { type Pod, parseOptional, parsePodUid } from "./pod.ts";

export interface StoredPod extends Pod {
  /** Of the network namespace that was captured; a path may lead to another one by now. */
  readonly netnsCookie: bigint;
  /** Stands for the pod in kernel maps, 1 to 2^32-1. */
  readonly id: number;
}

export interface PodStore {
  /** @throws MeshError `OBJECT_INVALID` where the file cannot be understood */
  read(): readonly StoredPod[];
  write(pods: readonly StoredPod[]): void;
}

const VERSION = 1;

/** @param bootId  of the running kernel: namespaces and cookies do not outlive it */
export function createPodStore(stateDir: string, bootId: string): PodStore {
  const path = join(stateDir, "pods.json");
  mkdirSync(stateDir, { recursive: true, mode: 0o700 });
  return {
    read: () => {
      const text = readIfExists(path);
      if (text === undefined) return [];
      const stored = parseFile(path, text);
      return stored.bootId === bootId ? stored.pods : [];
    },
    write: (pods) => {
      const written = pods.map((pod) => ({ ...pod, netnsCookie: String(pod.netnsCookie) }));
      writeDurably(path, JSON.stringify({ version: VERSION, bootId, pods: written }, null, 2));
    },
  };
}

export function readBootId(): string {
  return readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim();
}

function readIfExists(path: string): string | undefined {
  try {
    return readFileSync(path, "utf8");
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "ENOENT") return undefined;
    throw error;
  }
}

/** The file is replaced as a whole, after its contents have reached the disk. */
function writeDurably(path: string, text: string): void {
  const temporary = `${path}.new`;
  const fd = openSync(temporary, "w", 0o600);
  try {
    writeFileSync(fd, text);
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
  renameSync(temporary, path);
}

function parseFile(path: string, text: string): { bootId: string; pods: readonly StoredPod[] } {
  try {
    // Written by ourselves; each field is checked below.
    const file = JSON.parse(text) as { version: unknown; bootId: unknown; pods: unknown };
    if (file.version !== VERSION) throw new TypeError(`version is ${String(file.version)}`);
    if (typeof file.bootId !== "string" || !Array.isArray(file.pods)) {
      throw new TypeError("a field is missing");
    }
    return { bootId: file.bootId, pods: file.pods.map(parseStoredPod) };
  } catch (cause) {
    const hint = "remove it to start without pods, which stay blocked until they are put again";
    throw new MeshError("OBJECT_INVALID", `Cannot read "${path}": ${hint}`, { cause });
  }
}

function parseStoredPod(value: unknown): StoredPod {
  const { uid, name, namespace, serviceAccount, addresses, netns, netnsCookie, id, ...rest } =
    // Each field is checked below.
    value as Record<keyof StoredPod, unknown>;
  const texts = [uid, name, namespace, serviceAccount, netns, netnsCookie];
  if (!texts.every((text) => typeof text === "string") || !Array.isArray(addresses)) {
    throw new TypeError("a pod's field is missing");
  }
  if (typeof id !== "number") throw new TypeError("a pod has no id");
  return {
    uid: parsePodUid(String(uid)),
    name: String(name),
    namespace: String(namespace),
    serviceAccount: String(serviceAccount),
    addresses: addresses.map((address) => parseIp(String(address))),
    netns: String(netns),
    netnsCookie: BigInt(String(netnsCookie)),
    id,
    ...parseOptional(rest, refuseStored),
  };
}

function refuseStored(reason: string): never {
  throw new TypeError(reason);
}
