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

const UP_LIMIT_MS = 120_000;
const POLL_MS = 200;

export class Runtime {
  readonly name: string;
  readonly #process: ChildProcess;

  private constructor(name: string, process: ChildProcess) {
    this.name = name;
    this.#process = process;
  }

  /** Starts `aquifer local up`, whose progress goes to the terminal. */
  static start(name: string, nodes: number): Runtime {
    const args = ["local", "up", "-f", MANIFESTS, "--name", name, "--nodes", String(nodes)];
    // The agents inherit the format of logs; the demo reads them.
    const env = { ...process.env, LOG_FORMAT: "json" };
    return new Runtime(name, spawn(CLI, args, { stdio: ["ignore", "inherit", "inherit"], env }));
  }

  async status(): Promise<LocalStatus> {
    const { stdout } = await run(CLI, ["local", "status", "--name", this.name, "-o", "json"]);
    return JSON.parse(stdout) as LocalStatus;
  }

  /** Waits until every pod is ready. */
  async ready(): Promise<LocalStatus> {
    const deadlineMs = Date.now() + UP_LIMIT_MS;
    while (Date.now() < deadlineMs) {
      if (this.#process.exitCode !== null) throw new Error("the local runtime has ended");
      const status = await this.status().catch(() => undefined); // it does not listen yet
      if (status?.settled && status.pods.length > 0 && status.pods.every((pod) => pod.ready)) {
        return status;
      }
      await delay(POLL_MS);
    }
    throw new Error(`pods are not ready after ${UP_LIMIT_MS / 1_000} s`);
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
