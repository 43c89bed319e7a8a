/** Keeps one of the mesh's own processes running. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { setTimeout as delay } from "node:timers/promises";
import { MeshError, reasonOf } from "#core/errors.ts";
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
/** An agent gives itself 30 s to learn what the other knows, and that one as long to let go. */
const REPLACE_LIMIT_MS = 90_000;
const REPLACE_POLL_MS = 20;

/** @param failures  ends in a row, from 1, each soon after the start */
export function pauseMs(failures: number): number {
  return failures <= 1 ? 0 : Math.min(PAUSE_MAX_MS, PAUSE_MIN_MS * 2 ** (failures - 2));
}

export class SupervisedProcess {
  readonly #options: ProcessOptions;
  #child: ChildProcess | undefined;
  /** Started to take over from `#child`, and has not yet. */
  #successor: ChildProcess | undefined;
  /** Those that were taken over from, until they have ended. */
  readonly #former = new Set<ChildProcess>();
  #failures = 0;
  #restarts = 0;
  #startedAtMs = 0;
  #stopping = false;
  #restart: NodeJS.Timeout | undefined;
  #logCheck: NodeJS.Timeout | undefined;

  constructor(options: ProcessOptions) {
    this.#options = options;
  }

  get pid(): number | undefined {
    return this.#child?.pid;
  }

  /** Of those that another has taken over from, and that serve what they have to its end. */
  get formerPids(): readonly number[] {
    return [...this.#former].flatMap(({ pid }) => pid ?? []);
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

  /**
   * Starts another process beside the one that runs, which takes over from it and lets it end.
   *
   * @param hasTakenOver  asked again and again, with the id of the new process
   * @throws MeshError `COMMAND_FAILED` where the new one ends instead; the old one then goes on
   */
  async replace(hasTakenOver: (pid: number) => Promise<boolean>): Promise<number> {
    const { name, logPath } = this.#options;
    const attempt = `Cannot replace ${name}`;
    if (this.#stopping || this.#child === undefined || this.#successor !== undefined) {
      throw new MeshError("REQUEST_REFUSED", `${attempt}: it is not running, or being replaced`);
    }
    const successor = this.#launch();
    this.#successor = successor;
    const { pid = 0 } = successor;
    const deadlineMs = Date.now() + REPLACE_LIMIT_MS;
    while (isRunning(successor) && Date.now() < deadlineMs) {
      if (await hasTakenOver(pid)) {
        this.#promote(successor);
        return pid;
      }
      await delay(REPLACE_POLL_MS);
    }
    // Whoever takes that long will not; the old one has everything back when it is gone.
    successor.kill("SIGKILL");
    if (this.#successor === successor) this.#successor = undefined;
    throw new MeshError("COMMAND_FAILED", `${attempt}: the new one did not take over (${logPath})`);
  }

  async stop(graceMs: number): Promise<void> {
    this.#stopping = true;
    clearTimeout(this.#restart);
    clearInterval(this.#logCheck);
    const running = [this.#child, this.#successor, ...this.#former].filter((each) => each != null);
    if (running.length === 0) return;
    const { place, onNote } = this.#options;
    for (const child of running) child.kill("SIGTERM");
    const killTimer = setTimeout(() => {
      killCgroup(place.cgroup).catch((error: unknown) => onNote(reasonOf(error)));
    }, graceMs);
    await Promise.all(running.filter(isRunning).map((child) => once(child, "exit")));
    clearTimeout(killTimer);
  }

  #promote(successor: ChildProcess): void {
    const former = this.#child;
    this.#successor = undefined;
    this.#child = successor;
    this.#startedAtMs = Date.now();
    if (former === undefined || former === successor || !isRunning(former)) return;
    this.#former.add(former);
  }

  #spawn(): void {
    const child = this.#launch();
    this.#child = child;
    this.#startedAtMs = Date.now();
    this.#options.onStart?.(child);
  }

  #launch(): ChildProcess {
    const { place, command, environment, logPath, piped = false } = this.#options;
    const [file = "", ...args] = enterPlace(place, command);
    const log = openLog(logPath);
    const child = spawn(file, args, {
      env: { ...environment },
      stdio: piped ? ["pipe", "pipe", log.fd] : ["ignore", log.fd, log.fd],
      detached: true,
    });
    log.close();
    child.once("error", (error) => this.#ended(child, error.message));
    child.once("exit", (code, signal) => this.#ended(child, `it ended with ${code ?? signal}`));
    return child;
  }

  #ended(child: ChildProcess, reason: string): void {
    this.#former.delete(child);
    if (this.#child !== child) return;
    this.#child = undefined;
    if (this.#stopping) return;
    // It finds nobody to take over from, and serves all the same.
    const { onStart } = this.#options;
    if (this.#successor !== undefined && isRunning(this.#successor)) {
      const { name, onNote } = this.#options;
      onNote(`${name}: ${reason}; the one that was to replace it goes on alone`);
      this.#promote(this.#successor);
      if (this.#child) onStart?.(this.#child);
      return;
    }
    this.#failures = Date.now() - this.#startedAtMs > STABLE_MS ? 1 : this.#failures + 1;
    this.#restarts++;
    const { name, logPath, onNote } = this.#options;
    onNote(`${name}: ${reason}; starting it again (its log: ${logPath})`);
    this.#restart = setTimeout(() => this.#spawn(), pauseMs(this.#failures));
  }
}

function isRunning(child: ChildProcess): boolean {
  return child.exitCode === null && child.signalCode === null;
}
