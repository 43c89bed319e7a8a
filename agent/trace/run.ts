/**
 * Runs one of the bpftrace scripts for a while, as a child that never outlives this process, and
 * hands on what it says.
 */
import { type ChildProcessByStdio, spawn } from "node:child_process";
import type { Readable } from "node:stream";
import { MeshError } from "#core/errors.ts";
import type { IpAddress } from "#core/ip.ts";
import type { LatencyBucket, TraceEvent, TraceNotice, TraceSummary } from "#core/trace.ts";
import { LineSplitter } from "./lines.ts";
import { type Output, parseOutput, refusalOf } from "./parse.ts";
import {
  type PreparedTrace,
  prepareTrace,
  THIS_HOST,
  type TraceHost,
  type TraceWish,
} from "./prepare.ts";
import { COMMAND_PATH } from "./tracefs.ts";

export interface TraceRequest extends TraceWish {
  /** Ends the trace early, with a summary. */
  readonly signal: AbortSignal;
  /** What it throws ends the trace. */
  readonly onEvent: (event: TraceEvent) => void;
  readonly onNotice: (notice: TraceNotice) => void;
}

/** Compiling and attaching takes about a second; a busy machine takes ten. */
const START_LIMIT_MS = 30_000;
/** From SIGINT, at which bpftrace detaches and prints its totals, to SIGKILL. */
const STOP_LIMIT_MS = 10_000;
/** More than a person can read, and than a terminal should have to show. */
const EVENTS_PER_SECOND_MAX = 500;
const WINDOW_MS = 1000;
/** A histogram of all powers of two has 4 KiB. */
const LINE_LENGTH_MAX = 32 * 1024;
/** Notices about lines and warnings; all of them are counted. */
const COMPLAINTS_MAX = 100;
const QUOTED_LENGTH_MAX = 200;
/** Lines of bpftrace's that an error repeats. */
const SAID_LINES_MAX = 10;

/** Said by bpftrace 0.17 where it lacks CAP_SYS_RESOURCE, which Linux 5.11 no longer asks for. */
const MEMLOCK_NOISE = /couldn't set RLIMIT_MEMLOCK/;

/**
 * Resolves when the duration is over or `signal` aborts.
 *
 * @throws MeshError as `prepareTrace()` does; `COMMAND_FAILED` where bpftrace fails
 */
export async function runTrace(
  request: TraceRequest,
  host: TraceHost = THIS_HOST,
): Promise<TraceSummary> {
  const prepared = await prepareTrace(request, host);
  return new TraceRun(request, prepared, host).finished;
}

class TraceRun {
  readonly finished: Promise<TraceSummary>;
  readonly #request: TraceRequest;
  readonly #prepared: PreparedTrace;
  readonly #host: TraceHost;
  readonly #child: ChildProcessByStdio<null, Readable, Readable>;
  readonly #addresses: ReadonlySet<IpAddress> | undefined;
  readonly #counts = { events: 0, dropped: 0, filtered: 0, lost: 0, unparsed: 0 };
  readonly #said: string[] = [];
  #totals: Readonly<Record<string, number>> = {};
  #latencies: readonly LatencyBucket[] = [];
  #startedAtMs: number | undefined;
  #stoppedAtMs: number | undefined;
  #endedBy: "duration" | "caller" | undefined;
  #failure: unknown;
  #complaints = 0;
  #window = { count: 0, dropped: 0 };
  /** Each limit cancels the one before: starting, running, stopping. */
  #cancelLimit: () => void;
  #cancelWindow = () => {};

  constructor(request: TraceRequest, prepared: PreparedTrace, host: TraceHost) {
    this.#request = request;
    this.#prepared = prepared;
    this.#host = host;
    const { addresses } = request.filter ?? {};
    this.#addresses = addresses && new Set(addresses);
    this.#child = spawn(prepared.command, prepared.args, {
      stdio: ["ignore", "pipe", "pipe"],
      cwd: "/",
      env: { PATH: COMMAND_PATH },
    });
    this.#cancelLimit = host.timers.after(START_LIMIT_MS, () =>
      this.#fail(`bpftrace has not attached its probes within ${START_LIMIT_MS / 1000} s`),
    );
    this.finished = this.#follow();
  }

  async #follow(): Promise<TraceSummary> {
    const { signal } = this.#request;
    const onExit = () => this.#child.kill("SIGKILL");
    const onAbort = () => this.#stop("caller");
    process.on("exit", onExit);
    signal.addEventListener("abort", onAbort);
    if (signal.aborted) onAbort();
    try {
      const end = this.#ending();
      this.#read(this.#child.stdout, LINE_LENGTH_MAX, (line) => this.#take(line));
      this.#read(this.#child.stderr, LINE_LENGTH_MAX, (line) => this.#hear(line));
      return this.#conclude(await end);
    } finally {
      this.#cancelLimit();
      this.#cancelWindow();
      process.off("exit", onExit);
      signal.removeEventListener("abort", onAbort);
    }
  }

  /** Resolves with the exit status, null after a signal, when both pipes are closed too. */
  #ending(): Promise<number | null> {
    return new Promise((resolve, reject) => {
      this.#child.once("error", (cause) => {
        const message = `${this.#cannot()}: "${this.#prepared.command}" does not run`;
        reject(new MeshError("COMMAND_FAILED", message, { cause }));
      });
      this.#child.once("close", resolve);
    });
  }

  #read(stream: Readable, lengthMax: number, onLine: (line: string) => void): void {
    const splitter = new LineSplitter(lengthMax, onLine, (start) =>
      this.#refuse(start, `it is longer than ${lengthMax} characters`),
    );
    stream.setEncoding("utf8");
    stream.on("data", (text: string) => this.#guard(() => splitter.push(text)));
    stream.once("end", () => this.#guard(() => splitter.end()));
  }

  /** What the caller's functions throw ends the trace. */
  #guard(work: () => void): void {
    if (this.#failure !== undefined) return;
    try {
      work();
    } catch (error) {
      this.#failure = error;
      this.#child.kill("SIGKILL");
    }
  }

  #take(line: string): void {
    const context = {
      nowMs: this.#host.timers.nowMs(),
      resetReasons: this.#prepared.resetReasons,
    };
    let output: Output;
    try {
      output = parseOutput(line, context);
    } catch (error) {
      this.#refuse(line, refusalOf(error));
      return;
    }
    switch (output.kind) {
      case "ready":
        this.#start();
        return;
      case "event":
        this.#pass(output.event);
        return;
      case "totals":
        this.#totals = output.totals;
        return;
      case "latencies":
        this.#latencies = output.latencies;
        return;
      case "lost":
        this.#counts.lost += output.count;
        this.#request.onNotice({ kind: "lost", count: output.count });
        return;
      case "nothing":
        return;
    }
  }

  #start(): void {
    if (this.#startedAtMs !== undefined) return;
    this.#startedAtMs = this.#host.timers.nowMs();
    this.#request.onNotice({ kind: "started", variant: this.#prepared.script });
    for (const text of this.#said) this.#complain({ kind: "warning", text });
    if (this.#endedBy !== undefined) return;
    this.#cancelLimit();
    const { durationMs } = this.#request;
    this.#cancelLimit = this.#host.timers.after(durationMs, () => this.#stop("duration"));
  }

  #stop(endedBy: "duration" | "caller"): void {
    if (this.#endedBy !== undefined) return;
    this.#endedBy = endedBy;
    this.#stoppedAtMs = this.#host.timers.nowMs();
    this.#cancelLimit();
    this.#cancelLimit = this.#host.timers.after(STOP_LIMIT_MS, () => this.#child.kill("SIGKILL"));
    this.#child.kill("SIGINT");
  }

  #fail(reason: string): void {
    this.#failure ??= new MeshError("COMMAND_FAILED", `${this.#cannot()}: ${reason}`);
    this.#child.kill("SIGKILL");
  }

  #pass(event: TraceEvent): void {
    if (this.#addresses && !isAtOneOf(event, this.#addresses)) {
      this.#counts.filtered += 1;
      return;
    }
    if (this.#window.count === 0) {
      this.#cancelWindow = this.#host.timers.after(WINDOW_MS, () =>
        this.#guard(() => this.#closeWindow()),
      );
    }
    this.#window.count += 1;
    if (this.#window.count > EVENTS_PER_SECOND_MAX) {
      this.#window.dropped += 1;
      this.#counts.dropped += 1;
      return;
    }
    this.#counts.events += 1;
    this.#request.onEvent(event);
  }

  #closeWindow(): void {
    const { dropped } = this.#window;
    this.#cancelWindow();
    this.#window = { count: 0, dropped: 0 };
    if (dropped > 0) this.#request.onNotice({ kind: "dropped", count: dropped });
  }

  /** A line on standard error. */
  #hear(line: string): void {
    if (line.trim() === "" || MEMLOCK_NOISE.test(line)) return;
    const text = line.slice(0, QUOTED_LENGTH_MAX);
    if (this.#said.length < SAID_LINES_MAX) this.#said.push(text);
    if (this.#startedAtMs !== undefined) this.#complain({ kind: "warning", text });
  }

  #refuse(line: string, reason: string): void {
    this.#counts.unparsed += 1;
    this.#complain({ kind: "unparsed", line: line.slice(0, QUOTED_LENGTH_MAX), reason });
  }

  #complain(notice: TraceNotice): void {
    this.#complaints += 1;
    if (this.#complaints <= COMPLAINTS_MAX) this.#request.onNotice(notice);
    if (this.#complaints !== COMPLAINTS_MAX) return;
    this.#request.onNotice({ kind: "warning", text: "further notices are only counted" });
  }

  #conclude(status: number | null): TraceSummary {
    this.#guard(() => this.#closeWindow());
    if (this.#failure !== undefined) throw this.#failure;
    if (this.#endedBy === undefined) {
      const said = this.#said.length === 0 ? "" : `: ${this.#said.join("; ")}`;
      const how = status === null ? "was killed" : `ended with status ${status}`;
      throw new MeshError("COMMAND_FAILED", `${this.#cannot()}: bpftrace ${how}${said}`);
    }
    const endedAtMs = this.#stoppedAtMs ?? this.#host.timers.nowMs();
    return {
      name: this.#request.name,
      durationMs: this.#startedAtMs === undefined ? 0 : endedAtMs - this.#startedAtMs,
      endedBy: this.#endedBy,
      ...this.#counts,
      totals: this.#totals,
      latencies: this.#latencies,
      isComplete: status === 0,
    };
  }

  #cannot(): string {
    return `Cannot trace "${this.#request.name}"`;
  }
}

function isAtOneOf(event: TraceEvent, addresses: ReadonlySet<IpAddress>): boolean {
  switch (event.kind) {
    case "refused":
      return [event.asked, event.source, event.destination].some(
        (end) => end !== undefined && addresses.has(end.ip),
      );
    case "reset":
    case "retransmit":
    case "slow-handshake":
      return addresses.has(event.source.ip) || addresses.has(event.destination.ip);
    case "ring-buffer":
      return false;
  }
}
