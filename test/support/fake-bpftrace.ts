import { chmodSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import type { TraceHost } from "../../agent/trace/prepare.ts";
import { listTraces } from "../../agent/trace/registry.ts";
import { FakeTimers } from "./fake-timers.ts";

export interface FakeBpftrace {
  readonly host: TraceHost;
  readonly timers: FakeTimers;
  remove(): void;
}

/** Prints text as a line of `bpftrace -f json`; for scripts of `fakeBpftrace()`. */
export function printing(data: string): string {
  const line = JSON.stringify({ type: "printf", data: `${data}\n` });
  return `cat <<'END'\n${line}\nEND\n`;
}

/** Waits, as bpftrace does, until SIGINT; then runs `atEnd` and exits. */
export function untilInterrupted(atEnd = ""): string {
  // The loop is for the shell, which traps a signal only between two commands.
  return `trap '${atEnd} exit 0' INT\n${READY}while :; do sleep 0.02; done\n`;
}

const READY = printing('{"kind":"ready"}');

/** A host whose kernel has all tracepoints, and whose bpftrace is a shell script. */
export function fakeBpftrace(script: string, overrides: Partial<TraceHost> = {}): FakeBpftrace {
  const dir = mkdtempSync(path.join(tmpdir(), "aquifer-test-"));
  const bpftrace = path.join(dir, "bpftrace");
  const version = '[ "$1" != --version ] || { echo "bpftrace v0.17.0"; exit; }';
  writeFileSync(bpftrace, `#!/bin/sh\n${version}\n${script}`);
  chmodSync(bpftrace, 0o755);
  const timers = new FakeTimers();
  const needs = listTraces().flatMap(({ variants }) => variants[0].needs);
  const host: TraceHost = {
    bpftrace,
    scriptDir: "/scripts",
    timers,
    isRoot: () => true,
    hasKernelTypes: () => true,
    readFormats: async () =>
      new Map(
        needs.map(({ tracepoint, fields }) => [
          tracepoint,
          { fields: new Map(Object.entries(fields)), names: new Map() },
        ]),
      ),
    // A test that is killed leaves nothing behind either.
    enclose: (command) => ["setpriv", "--pdeathsig", "KILL", ...command],
    ringBuffers: () => ({ pid: 42, fds: [20, 21], isPidOfHost: true }),
    ...overrides,
  };
  return { host, timers, remove: () => rmSync(dir, { recursive: true }) };
}
