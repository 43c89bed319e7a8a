/** Carries out what container.ts decides, for one container of one pod. */
import { type ChildProcess, spawn } from "node:child_process";
import { constants } from "node:os";
import { setTimeout as delay } from "node:timers/promises";
import { reasonOf } from "#core/errors.ts";
import type { IpAddress } from "#core/ip.ts";
import type { ContainerSpec, ProbeSpec, RestartPolicy } from "../object/object.ts";
import type { ProbeKind } from "../object/parse-probe.ts";
import type { NodeProber } from "../prober/node-prober.ts";
import { createCgroup, killCgroup } from "../state/cgroup.ts";
import { type Container, type ContainerEvent, INITIAL, next } from "./container.ts";
import { enterBeside, enterNew, type PodPlace, type Program } from "./enter.ts";
import { cutLog, openLog, removeLog } from "./log-file.ts";
import { count, delayMs, firstDelayMs, UNPROBED } from "./probe.ts";
import { attempt, type ProbeOutcome } from "./prober.ts";

export interface ContainerOptions {
  readonly spec: ContainerSpec;
  readonly restartPolicy: RestartPolicy;
  readonly terminationGraceMs: number;
  /** Its own cgroup inside that of the pod. */
  readonly place: PodPlace & { readonly netnsPath: string };
  readonly ip: IpAddress;
  /** Who connects for a probe at the moment; undefined for the runtime itself, from inside. */
  readonly prober: () => NodeProber | undefined;
  readonly program: Program;
  readonly logPath: string;
  readonly onChange: () => void;
  /** Something a person may want to know, in a few words. */
  readonly onNote: (note: string) => void;
}

/** How often a log is looked at; what is written meanwhile may go beyond its limit. */
const LOG_CHECK_MS = 1_000;

export class ContainerLoop {
  readonly #options: ContainerOptions;
  #state: Container = INITIAL;
  #child: ChildProcess | undefined;
  #probing = new AbortController();
  #restart: NodeJS.Timeout | undefined;
  #logCheck: NodeJS.Timeout | undefined;
  #stopped = false;
  #gone = Promise.withResolvers<void>();

  constructor(options: ContainerOptions) {
    this.#options = options;
  }

  get name(): string {
    return this.#options.spec.name;
  }

  get state(): Container {
    return this.#state;
  }

  /** Of the first process, while there is one. */
  get pid(): number | undefined {
    return this.#child?.pid;
  }

  async start(): Promise<void> {
    await createCgroup(this.#options.place.cgroup);
    this.#logCheck = setInterval(() => this.#cutLog(), LOG_CHECK_MS);
    this.#logCheck.unref();
    this.#spawn();
  }

  /** The command line that runs another program in here; undefined while nothing runs. */
  enter(command: readonly string[]): readonly string[] | undefined {
    const { place, program } = this.#options;
    if (this.pid === undefined) return undefined;
    return enterBeside(place, this.pid, { ...program, command });
  }

  /** SIGTERM, then after the grace period SIGKILL to everything in here. Never started again. */
  async stop(graceMs: number): Promise<void> {
    this.#stopped = true;
    clearTimeout(this.#restart);
    clearInterval(this.#logCheck);
    this.#probing.abort();
    if (this.#child === undefined) return;
    const killTimer = this.#terminate(graceMs);
    await this.#gone.promise;
    clearTimeout(killTimer);
  }

  /** A log goes with its pod, as in Kubernetes: pods come and go, and the disk is finite. */
  async removeLog(): Promise<void> {
    await removeLog(this.#options.logPath);
  }

  /** @returns the timer that kills what is still there after `graceMs` */
  #terminate(graceMs: number): NodeJS.Timeout {
    this.#child?.kill("SIGTERM");
    return setTimeout(() => {
      killCgroup(this.#options.place.cgroup).catch((error: unknown) => this.#note(reasonOf(error)));
    }, graceMs);
  }

  #spawn(): void {
    const { place, program, logPath } = this.#options;
    const [file = "", ...args] = enterNew(place, program);
    const log = openLog(logPath);
    // A session of its own: Ctrl-C in the runtime's terminal is not for the pods.
    const child = spawn(file, args, {
      cwd: "/",
      stdio: ["ignore", log.fd, log.fd],
      detached: true,
    });
    log.close();
    this.#child = child;
    this.#gone = Promise.withResolvers<void>();
    child.once("error", (error) => this.#exited(127, `cannot be started: ${error.message}`));
    child.once("exit", (code, signal) => this.#exited(exitCodeOf(code, signal)));
    if (child.pid !== undefined) this.#handle({ kind: "started", nowMs: Date.now() });
    this.#startProbes();
  }

  #exited(code: number, reason?: string): void {
    if (this.#child === undefined) return;
    this.#child = undefined;
    this.#probing.abort();
    // That it was told to end is known, and why.
    const isExpected = this.#stopped || this.#state.phase === "stopping";
    if (!isExpected) this.#note(reason ?? `ended with ${code}`);
    // What the first process started is not to outlive it.
    killCgroup(this.#options.place.cgroup)
      .catch((error: unknown) => this.#note(reasonOf(error)))
      .finally(() => {
        this.#handle({ kind: "exited", nowMs: Date.now(), code });
        this.#gone.resolve();
      });
  }

  #handle(event: ContainerEvent): void {
    const { spec, restartPolicy, terminationGraceMs, onChange } = this.#options;
    const step = next(this.#state, event, { ...spec, restartPolicy });
    const hasChanged = JSON.stringify(step.state) !== JSON.stringify(this.#state);
    this.#state = step.state;
    for (const command of this.#stopped ? [] : step.commands) {
      switch (command.kind) {
        case "start":
          this.#restart = setTimeout(() => this.#spawn(), command.delayMs);
          break;
        case "stop": {
          this.#note(`${command.reason}: restarting it`);
          const killTimer = this.#terminate(terminationGraceMs);
          this.#gone.promise.finally(() => clearTimeout(killTimer));
          break;
        }
      }
    }
    if (hasChanged) onChange();
  }

  #startProbes(): void {
    this.#probing = new AbortController();
    const { startup, readiness, liveness } = this.#options.spec;
    const { signal } = this.#probing;
    if (startup !== undefined) this.#probe("startup", startup, signal);
    else this.#probeStarted(signal, readiness, liveness);
  }

  /** Readiness and liveness wait until the startup probe has succeeded. */
  #probeStarted(
    signal: AbortSignal,
    readiness: ProbeSpec | undefined,
    liveness: ProbeSpec | undefined,
  ): void {
    if (readiness !== undefined) this.#probe("readiness", readiness, signal);
    if (liveness !== undefined) this.#probe("liveness", liveness, signal);
  }

  #probe(kind: ProbeKind, spec: ProbeSpec, signal: AbortSignal): void {
    this.#probeLoop(kind, spec, signal).catch((error: unknown) => {
      if (!signal.aborted) this.#note(reasonOf(error));
    });
  }

  /** Ends by a rejection when `signal` is aborted. */
  async #probeLoop(kind: ProbeKind, spec: ProbeSpec, signal: AbortSignal): Promise<void> {
    let state = UNPROBED;
    await delay(firstDelayMs(kind, spec), undefined, { signal });
    for (;;) {
      const outcome = await this.#attempt(spec);
      if (signal.aborted) return;
      const before = state.healthy;
      state = count(kind, spec, state, outcome.ok);
      if (state.healthy === false && before !== false && !outcome.ok) {
        this.#note(`${kind} probe failed: ${outcome.reason}`);
      }
      if (state.healthy !== undefined && state.healthy !== before) {
        this.#handle({ kind: "probed", probe: kind, healthy: state.healthy });
      }
      if (kind === "startup" && state.healthy === true) {
        const { readiness, liveness } = this.#options.spec;
        this.#probeStarted(signal, readiness, liveness);
        return;
      }
      await delay(delayMs(kind, spec, state), undefined, { signal });
    }
  }

  #attempt(spec: ProbeSpec): Promise<ProbeOutcome> {
    const { place, ip, prober } = this.#options;
    const fromNode = spec.handler.kind === "exec" ? undefined : prober();
    if (fromNode !== undefined) return fromNode.attempt(spec, ip);
    const enter = (command: readonly string[]) => this.enter(command) ?? ["false"];
    return attempt(spec, { netnsPath: place.netnsPath, ip, enter });
  }

  #cutLog(): void {
    cutLog(this.#options.logPath).catch((error: unknown) => this.#note(reasonOf(error)));
  }

  #note(note: string): void {
    this.#options.onNote(`container ${this.name}: ${note}`);
  }
}

/** As a shell tells it: 128 and the number of the signal. */
function exitCodeOf(code: number | null, signal: NodeJS.Signals | null): number {
  return code ?? 128 + (signal === null ? 0 : constants.signals[signal]);
}
