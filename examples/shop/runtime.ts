/** The local runtime as the demo uses it: by its command line, as anybody would. */
import { type ChildProcess, execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { promisify } from "node:util";
import type { LocalStatus } from "#core/local-api.ts";

const run = promisify(execFile);

const CLI = join(import.meta.dirname, "../../bin/aquifer.mjs");
const MANIFESTS = join(import.meta.dirname, "manifests");

/** For setpriv(1): the signal that a process gets when the one that started it dies. */
export const DIES_WITH_US = ["--pdeathsig", "TERM"] as const;

const UP_LIMIT_MS = 120_000;
/** An earlier demo that was killed ends within seconds, one that runs on within a minute. */
const EARLIER_LIMIT_MS = 60_000;
const POLL_MS = 200;

export class Runtime {
  readonly name: string;
  readonly #process: ChildProcess;
  readonly #abort: AbortSignal;

  private constructor(name: string, process: ChildProcess, abort: AbortSignal) {
    this.name = name;
    this.#process = process;
    this.#abort = abort;
  }

  /**
   * Starts `aquifer local up`, whose progress goes to the terminal. Should the demo be killed, it
   * ends and cleans up too.
   */
  static start(name: string, nodes: number, abort: AbortSignal): Runtime {
    const args = ["local", "up", "-f", MANIFESTS, "--name", name, "--nodes", String(nodes)];
    // The agents inherit the format of logs; the demo reads them.
    const env = { ...process.env, LOG_FORMAT: "json" };
    const child = spawn("setpriv", [...DIES_WITH_US, CLI, ...args], {
      stdio: ["ignore", "inherit", "inherit"],
      env,
    });
    return new Runtime(name, child, abort);
  }

  /** Waits for an earlier runtime of this name, which may still be cleaning up, to be gone. */
  static async awaitEarlier(name: string): Promise<void> {
    const deadlineMs = Date.now() + EARLIER_LIMIT_MS;
    let isTold = false;
    while (await statusOf(name).catch(() => undefined)) {
      if (Date.now() > deadlineMs) {
        throw new Error(`"${name}" is running; end it: npx aquifer local down --name ${name}`);
      }
      if (!isTold) process.stdout.write(`Another "${name}" is running; waiting for its end.\n`);
      isTold = true;
      await delay(POLL_MS);
    }
  }

  /** Waits until it answers: the network between the nodes is there then. */
  answering(): Promise<LocalStatus> {
    return this.#until("to answer", () => true);
  }

  /** Waits until every pod is ready. */
  ready(): Promise<LocalStatus> {
    return this.#until("to have all pods ready", ({ settled, pods }) => {
      return settled && pods.length > 0 && pods.every((pod) => pod.ready);
    });
  }

  async #until(what: string, holds: (status: LocalStatus) => boolean): Promise<LocalStatus> {
    const deadlineMs = Date.now() + UP_LIMIT_MS;
    while (Date.now() < deadlineMs) {
      if (this.#abort.aborted) throw new Error("interrupted");
      if (this.#process.exitCode !== null) throw new Error("the local runtime has ended");
      const status = await statusOf(this.name).catch(() => undefined); // it does not listen yet
      if (status !== undefined && holds(status)) return status;
      await delay(POLL_MS);
    }
    throw new Error(`waited ${UP_LIMIT_MS / 1_000} s for the local runtime ${what}`);
  }

  /** Takes everything down. @returns the runtime's exit code */
  async stop(): Promise<number | null> {
    if (this.#process.exitCode === null && this.#process.signalCode === null) {
      const exited = once(this.#process, "exit");
      this.#process.kill("SIGINT");
      await exited;
    }
    return this.#process.exitCode;
  }
}

async function statusOf(name: string): Promise<LocalStatus> {
  const { stdout } = await run(CLI, ["local", "status", "--name", name, "-o", "json"]);
  return JSON.parse(stdout) as LocalStatus;
}
