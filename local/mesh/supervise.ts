/** Keeps one of the mesh's own processes running. */
import { type ChildProcess, spawn } from "node:child_process";
import { reasonOf } from "#core/errors.ts";
import { enterPlace, type Place } from "../pod/enter.ts";
import { cutLog, openLog } from "../pod/log-file.ts";
import { createCgroup, killCgroup } from "../state/cgroup.ts";

export interface ProcessOptions {
  readonly name: string;
  readonly place: Place;
  readonly command: readonly string[];
  readonly environment: Readonly<Record<string, string>>;
  readonly logPath: string;
  /** With a pipe to standard input and from standard output; otherwise both go to the log. */
  readonly piped?: boolean;
  /** After each start; the process is not ready yet. */
  readonly onStart?: (child: ChildProcess) => void;
  readonly onNote: (note: string) => void;
}

/**
 * The first restart is at once: while an agent is away, its pods' connections are refused. After
 * that the pause doubles, so that a process that cannot start does not eat the machine.
 */
const PAUSE_MIN_MS = 50;
const PAUSE_MAX_MS = 5_000;
/** What ran for this long did start: the next end is a new misfortune. */
const STABLE_MS = 10_000;
const LOG_CHECK_MS = 2_000;

/** @param failures  ends in a row, from 1, each soon after the start */
export function pauseMs(failures: number): number {
  return failures <= 1 ? 0 : Math.min(PAUSE_MAX_MS, PAUSE_MIN_MS * 2 ** (failures - 2));
}

export class SupervisedProcess {
  readonly #options: ProcessOptions;
  #child: ChildProcess | undefined;
  #failures = 0;
  #restarts = 0;
  #startedAtMs = 0;
  #stopping = false;
  #restart: NodeJS.Timeout | undefined;
  #logCheck: NodeJS.Timeout | undefined;
  #gone = Promise.withResolvers<void>();

  constructor(options: ProcessOptions) {
    this.#options = options;
  }

  get pid(): number | undefined {
    return this.#child?.pid;
  }

  get restarts(): number {
    return this.#restarts;
  }

  async start(): Promise<void> {
    const { place, logPath, onNote } = this.#options;
    await createCgroup(place.cgroup);
    this.#spawn();
    this.#logCheck = setInterval(() => {
      cutLog(logPath).catch((error: unknown) => onNote(reasonOf(error)));
    }, LOG_CHECK_MS);
    this.#logCheck.unref();
  }

  async stop(graceMs: number): Promise<void> {
    this.#stopping = true;
    clearTimeout(this.#restart);
    clearInterval(this.#logCheck);
    if (this.#child === undefined) return;
    const { place, onNote } = this.#options;
    this.#child.kill("SIGTERM");
    const killTimer = setTimeout(() => {
      killCgroup(place.cgroup).catch((error: unknown) => onNote(reasonOf(error)));
    }, graceMs);
    await this.#gone.promise;
    clearTimeout(killTimer);
  }

  #spawn(): void {
    const { place, command, environment, logPath, piped = false, onStart } = this.#options;
    const [file = "", ...args] = enterPlace(place, command);
    const log = openLog(logPath);
    const child = spawn(file, args, {
      env: { ...environment },
      stdio: piped ? ["pipe", "pipe", log.fd] : ["ignore", log.fd, log.fd],
      detached: true,
    });
    log.close();
    this.#child = child;
    this.#startedAtMs = Date.now();
    this.#gone = Promise.withResolvers<void>();
    child.once("error", (error) => this.#ended(child, error.message));
    child.once("exit", (code, signal) => this.#ended(child, `it ended with ${code ?? signal}`));
    onStart?.(child);
  }

  #ended(child: ChildProcess, reason: string): void {
    if (this.#child !== child) return;
    this.#child = undefined;
    this.#gone.resolve();
    if (this.#stopping) return;
    this.#failures = Date.now() - this.#startedAtMs > STABLE_MS ? 1 : this.#failures + 1;
    this.#restarts++;
    const { name, logPath, onNote } = this.#options;
    onNote(`${name}: ${reason}; starting it again (its log: ${logPath})`);
    this.#restart = setTimeout(() => this.#spawn(), pauseMs(this.#failures));
  }
}
