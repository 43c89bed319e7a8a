/**
 * What this kernel's tracepoints look like, from tracefs. Where that is not mounted, it is mounted
 * in a mount namespace of a child's own, so that the host's mounts stay as they are.
 */
import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { promisify } from "node:util";
import { MeshError } from "#core/errors.ts";

/** The `format` file of one tracepoint. */
export interface TracepointFormat {
  /** Size in bytes of each field. */
  readonly fields: ReadonlyMap<string, number>;
  /** Of a field that the kernel prints by name: value to name. */
  readonly names: ReadonlyMap<string, ReadonlyMap<number, string>>;
}

/** "tcp:tcp_send_reset" to its format; without those that the kernel lacks. */
export type TracepointFormats = ReadonlyMap<string, TracepointFormat>;

const TRACEFS = "/sys/kernel/tracing";
/** Found nowhere else, so that what runs as root does not depend on who started the agent. */
export const COMMAND_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const READ_LIMIT_MS = 10_000;

/** Prints a line "= NAME" and the format of each of "$@". */
const PRINT_FORMATS =
  'for name; do echo "= $name"; cat "/sys/kernel/tracing/events/$name/format" || :; done 2>&-';

/** Puts what it takes to see tracefs in front of a command. */
export function withTracefs(command: readonly string[]): readonly string[] {
  if (existsSync(`${TRACEFS}/events`)) return command;
  const mount = `mount -t tracefs tracefs ${TRACEFS} && exec "$@"`;
  return ["unshare", "--mount", "sh", "-c", mount, "sh", ...command];
}

/** @throws MeshError `KERNEL_UNSUPPORTED` where there is no tracefs, or it cannot be mounted */
export async function readTracepointFormats(names: readonly string[]): Promise<TracepointFormats> {
  if (!existsSync(TRACEFS)) {
    const reason = `there is no ${TRACEFS} (CONFIG_TRACING, Linux 4.1)`;
    throw new MeshError("KERNEL_UNSUPPORTED", `Cannot read tracepoints: ${reason}`);
  }
  const paths = names.map((name) => name.replace(":", "/"));
  const [command = "", ...args] = withTracefs(["sh", "-c", PRINT_FORMATS, "sh", ...paths]);
  try {
    const { stdout } = await promisify(execFile)(command, args, {
      env: { PATH: COMMAND_PATH },
      timeout: READ_LIMIT_MS,
    });
    return parseFormats(stdout);
  } catch (cause) {
    throw new MeshError("KERNEL_UNSUPPORTED", "Cannot read tracepoints", { cause });
  }
}

/** Reads what `PRINT_FORMATS` printed. */
export function parseFormats(text: string): TracepointFormats {
  const formats = new Map<string, TracepointFormat>();
  for (const section of text.split(/^= /m).slice(1)) {
    const name = section.slice(0, section.indexOf("\n")).trim().replace("/", ":");
    if (/^format:/m.test(section)) formats.set(name, parseFormat(section));
  }
  return formats;
}

/** @see Documentation/trace/events.rst, "Event formats" */
function parseFormat(text: string): TracepointFormat {
  const fields = new Map<string, number>();
  for (const [, declaration = "", size] of text.matchAll(
    /^\s+field:([^;]+);\s*offset:\d+;\s*size:(\d+);/gm,
  )) {
    const name = /(\w+)(\[\d*\])?$/.exec(declaration)?.[1];
    if (name !== undefined) fields.set(name, Number(size));
  }
  const names = new Map<string, ReadonlyMap<number, string>>();
  for (const [, field = "", list = ""] of text.matchAll(
    /__print_symbolic\(REC->(\w+), ((?:\{ [^{}]+ \}(?:, )?)+)\)/g,
  )) {
    names.set(field, parseNames(list));
  }
  return { fields, names };
}

/** `{ 0, "NOT_SPECIFIED" }, { 1, "NO_SOCKET" }`; a constant in place of the number is left out. */
function parseNames(list: string): ReadonlyMap<number, string> {
  const pairs = [...list.matchAll(/\{ (\d+), "([^"]*)" \}/g)];
  return new Map(pairs.map(([, value, name = ""]) => [Number(value), name]));
}
