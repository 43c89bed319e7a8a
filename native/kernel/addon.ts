/**
 * What the addon exports: same names and same order as in addon.cc, to be read side by side.
 *
 * Nothing here knows what a failure means. The files beside this one give each its sentence.
 */
import { createRequire } from "node:module";
import { getSystemErrorName } from "node:util";
import { MeshError } from "#core/errors.ts";

export interface NativeLinkInfo {
  readonly id: number;
  readonly programId: number;
  /** Of the cgroup, even of one that is gone, or 0; null where the link is not on a cgroup. */
  readonly cgroupId: bigint | null;
  /** Inode of the network namespace, 0 where it is gone; null where the link is not on one. */
  readonly netnsInode: number | null;
}

export interface NativeBpfLink {
  info(): NativeLinkInfo;
  pin(path: string): void;
  update(object: NativeBpfObject, program: string): void;
  detach(): void;
  close(): void;
}

export interface NativeBpfMap {
  readonly fd: number;
  readonly keyBytes: number;
  readonly valueBytes: number;
  readonly entriesMax: number;
  lookup(key: Uint8Array, value: Uint8Array): boolean;
  update(key: Uint8Array, value: Uint8Array): void;
  delete(key: Uint8Array): boolean;
  nextKey(key: Uint8Array | null, next: Uint8Array): boolean;
  close(): void;
}

export interface NativeProgramCost {
  readonly name: string;
  /** Instructions that the verifier walked through; 0 where the kernel does not tell (5.16). */
  readonly verifiedInstructions: number;
  readonly jitedBytes: number;
}

export interface NativeMapCost {
  readonly name: string;
  readonly memoryBytes: number;
}

export interface NativeBpfObject {
  costs(): {
    readonly programs: readonly NativeProgramCost[];
    readonly maps: readonly NativeMapCost[];
  };
  setConstant(name: string, bytes: Uint8Array): void;
  setPinPath(map: string, path: string): void;
  setEntriesMax(map: string, entriesMax: number): void;
  load(): void;
  openMap(name: string): NativeBpfMap;
  attachCgroup(program: string, cgroupPath: string): NativeBpfLink;
  attachNetns(program: string, netnsFd: number): NativeBpfLink;
  close(): void;
}

export interface NativeRingBuffer {
  drain(recordBytes: number): ArrayBuffer | null;
  watch(callback: () => void): void;
  foreignRecords(): number;
  close(): void;
}

interface Addon {
  readonly BpfLink: new (path: string) => NativeBpfLink;
  readonly BpfMap: new (path: string) => NativeBpfMap;
  readonly BpfObject: new (path: string) => NativeBpfObject;
  readonly RingBuffer: new (path: string) => NativeRingBuffer;
  cgroupExists(mountPath: string, id: bigint): boolean;
  ensureBpffs(path: string): boolean;
  makeHash(name: string, keyBytes: number, valueBytes: number, entriesMax: number): NativeBpfMap;
  openNetns(path: string): number;
  netnsCookie(netnsFd: number): bigint;
  netnsSocket(netnsFd: number, ip: Uint8Array, port: number, bind: boolean): number;
  netnsListen(netnsFd: number, ip: Uint8Array, port: number, backlog: number): number;
  netnsUdpSocket(netnsFd: number, ip: Uint8Array, port: number, bind: boolean): number;
  originalDestination(fd: number): Uint8Array | null;
  setMark(fd: number, mark: number): void;
  bindTransparent(fd: number, ip: Uint8Array): void;
  netnsDestroyTcp(
    netnsFd: number,
    ip: Uint8Array,
    port: number,
    peerIp: Uint8Array,
    peerPort: number,
  ): boolean;
  setLingerReset(fd: number): void;
  socketCookie(fd: number): bigint;
  tcpInfo(fd: number): { readonly rttUs: number; readonly retransmits: number };
  claimAddress(fd: number): void;
  closeDescriptor(fd: number): void;
}

// The addon is C++: what it exports is known from its source, not from a type.
export const addon = createRequire(import.meta.url)(
  "../../build/native/aquifer_kernel.node",
) as Addon;

/**
 * Runs `call`, and turns the addon's bare `{syscall, errno}` into a sentence.
 *
 * @param attempt  what could not be done, as in "use map "x""
 * @throws MeshError `KERNEL_CALL_FAILED`, whose cause has the errno and, where libbpf gave one, its
 *   own account; a bug of ours stays as it is
 */
export function naming<Result>(attempt: string, call: () => Result): Result {
  try {
    return call();
  } catch (error) {
    if (!isSystemError(error)) throw error;
    const reason = `${error.syscall}: ${getSystemErrorName(-error.errno)}`;
    throw new MeshError("KERNEL_CALL_FAILED", `Cannot ${attempt}: ${reason}`, { cause: error });
  }
}

interface SystemError extends Error {
  readonly syscall: string;
  /** Positive, as in errno.h. */
  readonly errno: number;
}

function isSystemError(error: unknown): error is SystemError {
  return error instanceof Error && "syscall" in error && "errno" in error;
}

/** The errno behind an error of `naming()`, positive; undefined where there is none. */
export function errnoOf(error: unknown): number | undefined {
  const cause = error instanceof MeshError ? error.cause : error;
  return isSystemError(cause) ? cause.errno : undefined;
}
