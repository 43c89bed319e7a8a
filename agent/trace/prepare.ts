/** All that must be known, and be right, before bpftrace is started. */
import { execFile } from "node:child_process";
import { existsSync, readdirSync, readFileSync, statSync } from "node:fs";
import path from "node:path";
import { promisify } from "node:util";
import { MeshError } from "#core/errors.ts";
import type { TraceFilter, TraceName } from "#core/trace.ts";
import { SYSTEM_TIMERS, type Timers } from "../timers.ts";
import { chooseVariant, findTrace, type TraceDefinition, tracepointsOf } from "./registry.ts";
import {
  COMMAND_PATH,
  readTracepointFormats,
  type TracepointFormats,
  withTracefs,
} from "./tracefs.ts";

/** What a trace takes of the machine it runs on. */
export interface TraceHost {
  /** A path, or a name to be found in `COMMAND_PATH`. */
  readonly bpftrace: string;
  readonly scriptDir: string;
  readonly timers: Timers;
  isRoot(): boolean;
  hasKernelTypes(): boolean;
  readFormats(tracepoints: readonly string[]): Promise<TracepointFormats>;
  /** Makes a command end with this process, and see tracefs. */
  enclose(command: readonly string[]): readonly string[];
  /** The BPF ring buffers of this process. */
  ringBuffers(): RingBuffers;
}

export interface RingBuffers {
  readonly pid: number;
  readonly fds: readonly number[];
  /** A process in a PID namespace of its own does not know its number, which bpftrace asks for. */
  readonly isPidOfHost: boolean;
}

export interface TraceWish {
  readonly name: TraceName;
  /** 1 ms to 10 minutes, from the moment that the tracepoints are attached. */
  readonly durationMs: number;
  readonly filter?: TraceFilter;
  /** Handshakes from this long on are events of their own; 100 ms unless set. */
  readonly slowHandshakeUs?: number;
}

export interface PreparedTrace {
  readonly script: string;
  readonly command: string;
  readonly args: readonly string[];
  readonly resetReasons: ReadonlyMap<number, string>;
}

/** For a person who watches; a trace costs something at each event. */
export const DURATION_MS_DEFAULT = 10_000;
export const DURATION_MS_MAX = 10 * 60_000;

/** The scripts are tested with it. Earlier ones read fewer of the kernel's types. */
const BPFTRACE_OLDEST = "0.17.0";
const VERSION_LIMIT_MS = 10_000;
/** Positional parameters that ring-buffers.bt has for them. */
const RING_BUFFERS_MAX = 4;
/** Inode of the first PID namespace (PROC_PID_INIT_INO in include/linux/proc_ns.h). */
const HOST_PID_NAMESPACE = 0xeffffffc;

export const THIS_HOST: TraceHost = {
  bpftrace: "bpftrace",
  scriptDir: path.resolve(import.meta.dirname, "../../bpf/trace"),
  timers: SYSTEM_TIMERS,
  isRoot: () => process.geteuid?.() === 0,
  hasKernelTypes: () => existsSync("/sys/kernel/btf/vmlinux"),
  readFormats: readTracepointFormats,
  // A trace must not go on when the agent is killed, and then nobody else can end it (prctl(2),
  // PR_SET_PDEATHSIG).
  enclose: (command) => ["setpriv", "--pdeathsig", "KILL", ...withTracefs(command)],
  ringBuffers: () => ({
    pid: process.pid,
    fds: findRingBuffers(),
    isPidOfHost: statSync("/proc/self/ns/pid").ino === HOST_PID_NAMESPACE,
  }),
};

/**
 * @throws MeshError `REQUEST_REFUSED` for a wish that cannot be granted, `KERNEL_UNSUPPORTED` where
 *   the kernel lacks what the trace reads, `COMMAND_FAILED` where bpftrace is missing or too old
 */
export async function prepareTrace(wish: TraceWish, host: TraceHost): Promise<PreparedTrace> {
  const definition = findTrace(wish.name);
  checkWish(wish, definition);
  if (!host.isRoot()) throw refuse(wish, "COMMAND_FAILED", "it takes root, as bpftrace does");
  await checkVersion(wish, host);
  if (!host.hasKernelTypes()) {
    const reason = "this kernel has no /sys/kernel/btf/vmlinux (CONFIG_DEBUG_INFO_BTF)";
    throw refuse(wish, "KERNEL_UNSUPPORTED", reason);
  }
  const formats = await host.readFormats(tracepointsOf(definition));
  const { script } = chooseVariant(definition, formats);
  const file = path.join(host.scriptDir, script);
  // --no-warnings: they are for who writes a script.
  const options = ["--no-warnings", "-f", "json", file];
  const whole = [host.bpftrace, ...options, ...parametersOf(wish, host).map(String)];
  const [command = "", ...args] = host.enclose(whole);
  const resetReasons = formats.get("tcp:tcp_send_reset")?.names.get("reason") ?? new Map();
  return { script, command, args, resetReasons };
}

function refuse(
  { name }: TraceWish,
  code: "REQUEST_REFUSED" | "COMMAND_FAILED" | "KERNEL_UNSUPPORTED",
  reason: string,
): MeshError {
  return new MeshError(code, `Cannot trace "${name}": ${reason}`);
}

function checkWish(wish: TraceWish, { filters }: TraceDefinition): void {
  const { durationMs, filter = {}, slowHandshakeUs } = wish;
  if (!(durationMs >= 1 && durationMs <= DURATION_MS_MAX)) {
    const reason = `${durationMs} ms is not between 1 ms and ${DURATION_MS_MAX / 60_000} minutes`;
    throw refuse(wish, "REQUEST_REFUSED", reason);
  }
  if (slowHandshakeUs !== undefined && wish.name !== "handshakes") {
    throw refuse(wish, "REQUEST_REFUSED", "only handshakes have a limit to what is slow");
  }
  for (const key of ["netns", "cgroup", "addresses"] as const) {
    if (filter[key] !== undefined && !filters.includes(key)) {
      throw refuse(wish, "REQUEST_REFUSED", `it cannot be filtered by ${key}`);
    }
  }
  for (const number of [filter.netns, filter.cgroup, slowHandshakeUs]) {
    if (number !== undefined && !(Number.isSafeInteger(number) && number > 0)) {
      throw refuse(wish, "REQUEST_REFUSED", `${number} is no positive integer`);
    }
  }
}

async function checkVersion(wish: TraceWish, { bpftrace }: TraceHost): Promise<void> {
  const printed = await printedVersion(wish, bpftrace);
  const version = /^bpftrace v(\d+)\.(\d+)\.(\d+)/.exec(printed)?.slice(1).map(Number);
  if (!version) {
    const reason = `"${bpftrace} --version" says ${JSON.stringify(printed.slice(0, 100))}`;
    throw refuse(wish, "COMMAND_FAILED", reason);
  }
  const oldest = BPFTRACE_OLDEST.split(".").map(Number);
  const difference = oldest.map((part, index) => (version[index] ?? 0) - part).find(Boolean) ?? 0;
  if (difference < 0) {
    const reason = `bpftrace ${version.join(".")} is too old, ${BPFTRACE_OLDEST} or newer is needed`;
    throw refuse(wish, "COMMAND_FAILED", reason);
  }
}

async function printedVersion(wish: TraceWish, bpftrace: string): Promise<string> {
  try {
    const options = { env: { PATH: COMMAND_PATH }, timeout: VERSION_LIMIT_MS };
    const { stdout } = await promisify(execFile)(bpftrace, ["--version"], options);
    return stdout.trim();
  } catch (cause) {
    const isMissing = cause instanceof Error && "code" in cause && cause.code === "ENOENT";
    const reason = isMissing
      ? 'bpftrace is not installed: install the package "bpftrace" (apt, dnf, apk)'
      : "bpftrace does not run";
    throw new MeshError("COMMAND_FAILED", `Cannot trace "${wish.name}": ${reason}`, { cause });
  }
}

/** The scripts' `$1`, `$2`, …: 0 means all, or their default. */
function parametersOf(wish: TraceWish, host: TraceHost): readonly number[] {
  const { filter } = wish;
  if (wish.name !== "ring-buffers") {
    return [filter?.netns ?? 0, filter?.cgroup ?? 0, wish.slowHandshakeUs ?? 0];
  }
  const { pid, fds, isPidOfHost } = host.ringBuffers();
  if (!isPidOfHost) {
    throw refuse(wish, "KERNEL_UNSUPPORTED", "the agent is in a PID namespace of its own");
  }
  if (fds.length === 0 || fds.length > RING_BUFFERS_MAX) {
    const reason = `the agent has ${fds.length} ring buffers open, not 1 to ${RING_BUFFERS_MAX}`;
    throw refuse(wish, "KERNEL_UNSUPPORTED", reason);
  }
  return [pid, ...fds];
}

/** Descriptors of this process that are maps of type BPF_MAP_TYPE_RINGBUF (27). */
function findRingBuffers(): readonly number[] {
  const dir = "/proc/self/fdinfo";
  return readdirSync(dir)
    .filter((fd) => /^map_type:\t27$/m.test(readIfOpen(path.join(dir, fd))))
    .map(Number);
}

/** Reading the directory opened a descriptor of its own, which is closed by now. */
function readIfOpen(file: string): string {
  try {
    return readFileSync(file, "utf8");
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "ENOENT") return "";
    throw error;
  }
}
