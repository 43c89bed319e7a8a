/**
 * A whole mesh on this host for one test file: the local runtime with real pods, agents and
 * control. Goes through the runtime's own API, as its command line does.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { request } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import type {
  AgentUpgrade,
  ApplyAnswer,
  ExecAnswer,
  LocalStatus,
  PodStatus,
} from "#core/local-api.ts";

const ROOT = join(import.meta.dirname, "../..");
const CLI = join(ROOT, "bin/aquifer.mjs");

/** Everything to come up, on a machine that does other things too. */
const UP_LIMIT_MS = 90_000;
const WAIT_LIMIT_MS = 30_000;
const POLL_MS = 50;

export interface Finished {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

export interface LocalMeshOptions {
  /** Different for each test file; the process id is added, so that two runs do not meet. */
  readonly name: string;
  /** Kubernetes YAML. */
  readonly manifests: string;
  readonly nodes?: number;
  /** False brings up the pods alone. */
  readonly mesh?: boolean;
  /** More arguments of `local up`. */
  readonly arguments?: readonly string[];
}

/** One line of an agent's log. */
export type LogLine = Readonly<Record<string, unknown>>;

export class LocalMesh {
  readonly name: string;
  readonly #process: ChildProcess;
  readonly #directory: string;
  readonly #socket: string;

  private constructor(name: string, runtime: ChildProcess, directory: string) {
    this.name = name;
    this.#process = runtime;
    this.#directory = directory;
    const root = process.env["AQUIFER_LOCAL_ROOT"] ?? "/run/aquifer/local";
    this.#socket = join(root, name, "api.sock");
  }

  /**
   * Brings it up and waits until every pod is ready. What it printed stands in the error if not.
   */
  static async up(options: LocalMeshOptions): Promise<LocalMesh> {
    const name = `${options.name}-${process.pid}`;
    const directory = mkdtempSync(join(tmpdir(), `aquifer-${name}-`));
    writeFileSync(join(directory, "manifests.yaml"), options.manifests);
    const output = openSync(join(directory, "output"), "w");
    const args = ["local", "up", "-f", join(directory, "manifests.yaml"), "--name", name];
    args.push("--nodes", String(options.nodes ?? 2));
    if (options.mesh === false) args.push("--no-mesh");
    args.push(...(options.arguments ?? []));
    const env = { ...process.env, LOG_FORMAT: "json" };
    const child = spawn(CLI, args, { stdio: ["ignore", output, output], env });
    const mesh = new LocalMesh(name, child, directory);
    try {
      await mesh.waitFor("all pods to be ready", isUp, UP_LIMIT_MS);
      return mesh;
    } catch (error) {
      const printed = readFileSync(join(directory, "output"), "utf8");
      await mesh.down();
      throw new Error(`Cannot bring up "${name}"; it printed:\n${printed}`, { cause: error });
    }
  }

  status(): Promise<LocalStatus> {
    return this.#ask<LocalStatus>("GET", "/v1/status");
  }

  /** Polls the status until `holds`, and fails with the last one after the limit. */
  async waitFor(
    what: string,
    holds: (status: LocalStatus) => boolean,
    limitMs = WAIT_LIMIT_MS,
  ): Promise<LocalStatus> {
    const deadlineMs = Date.now() + limitMs;
    let last: LocalStatus | undefined;
    while (Date.now() < deadlineMs) {
      if (this.#process.exitCode !== null) throw new Error("the runtime has ended");
      last = await this.status().catch(() => undefined); // not listening yet
      if (last !== undefined && holds(last)) return last;
      await delay(POLL_MS);
    }
    const pods = last?.pods.map(({ name, phase, ready, message }) => {
      return `${name}: ${phase}, ${ready ? "ready" : "not ready"} ${message}`;
    });
    throw new Error(`waited ${limitMs} ms for ${what}; pods:\n  ${pods?.join("\n  ")}`);
  }

  async apply(yaml: string): Promise<ApplyAnswer> {
    return this.#ask<ApplyAnswer>("POST", "/v1/apply", {
      files: [{ path: "test.yaml", text: yaml }],
    });
  }

  async delete(yaml: string): Promise<ApplyAnswer> {
    return this.#ask<ApplyAnswer>("POST", "/v1/delete", {
      files: [{ path: "test.yaml", text: yaml }],
    });
  }

  /** Replaces agents by new ones, one after the other; all of them where no node is named. */
  async upgrade(nodes?: readonly string[]): Promise<readonly AgentUpgrade[]> {
    const body = nodes === undefined ? {} : { nodes };
    type Answer = { readonly upgrades: readonly AgentUpgrade[] };
    return (await this.#ask<Answer>("POST", "/v1/upgrade", body)).upgrades;
  }

  /** The pod `namespace/name`, or the first that a deployment of that name made. */
  async pod(name: string): Promise<PodStatus> {
    const { pods } = await this.status();
    const found = pods.find((pod) => {
      const full = `${pod.namespace}/${pod.name}`;
      return !pod.terminating && (full === name || full.startsWith(`${name}-`));
    });
    if (found === undefined) throw new Error(`no pod "${name}"`);
    return found;
  }

  /** Starts a program inside a pod. */
  async spawn(pod: string, command: readonly string[]): Promise<ChildProcess> {
    const { namespace, name } = await this.pod(pod);
    const answer = await this.#ask<ExecAnswer>("POST", "/v1/exec", {
      namespace,
      pod: name,
      command,
    });
    const [program = "", ...args] = answer.command;
    return spawn(program, args, { stdio: ["pipe", "pipe", "pipe"] });
  }

  /** Runs a program inside a pod to its end. */
  async exec(pod: string, command: readonly string[], limitMs = 60_000): Promise<Finished> {
    const child = await this.spawn(pod, command);
    child.stdin?.end();
    return finish(child, limitMs);
  }

  /** `GET path` at a port of a node's own network: what its agent serves there. */
  async getFromNode(node: string, port: number, path: string): Promise<string> {
    const { nodes } = await this.status();
    const netns = nodes.find(({ name }) => name === node)?.netns ?? "";
    const url = `http://127.0.0.1:${port}${path}`;
    const command = ["netns", "exec", netns, "curl", "--silent", "--show-error", url];
    const { code, stdout, stderr } = await finish(spawn("ip", command), 10_000);
    if (code !== 0) throw new Error(`Cannot get "${url}" on "${node}": ${stderr}`);
    return stdout;
  }

  /** The agent's log so far. */
  async agentLog(node: string): Promise<readonly LogLine[]> {
    const { nodes } = await this.status();
    const path = nodes.find(({ name }) => name === node)?.agent?.log ?? "";
    const lines = readFileSync(path, "utf8").split("\n");
    return lines.flatMap((line) => (line.startsWith("{") ? [JSON.parse(line) as LogLine] : []));
  }

  /** Waits for a line of the agent's log. */
  async waitForLog(
    node: string,
    what: string,
    holds: (line: LogLine) => boolean,
  ): Promise<LogLine> {
    const deadlineMs = Date.now() + WAIT_LIMIT_MS;
    while (Date.now() < deadlineMs) {
      const found = (await this.agentLog(node)).findLast(holds);
      if (found) return found;
      await delay(POLL_MS);
    }
    throw new Error(`the agent of "${node}" did not log ${what}`);
  }

  /** Takes everything down. Safe to call twice, and after a failed start. */
  async down(): Promise<void> {
    if (this.#process.exitCode === null && this.#process.signalCode === null) {
      const exited = once(this.#process, "exit");
      this.#process.kill("SIGINT");
      await exited;
    }
    rmSync(this.#directory, { recursive: true, force: true });
  }

  /** What the runtime printed so far. */
  output(): string {
    return readFileSync(join(this.#directory, "output"), "utf8");
  }

  get runtimePid(): number {
    return this.#process.pid ?? 0;
  }

  #ask<Answer>(method: string, path: string, body?: unknown): Promise<Answer> {
    return new Promise((resolve, reject) => {
      const headers = body === undefined ? {} : { "content-type": "application/json" };
      const call = request({ socketPath: this.#socket, method, path, headers }, (response) => {
        const chunks: Buffer[] = [];
        response.on("data", (chunk: Buffer) => chunks.push(chunk));
        response.on("end", () => {
          const text = Buffer.concat(chunks).toString();
          if ((response.statusCode ?? 500) >= 400) reject(new Error(`${method} ${path}: ${text}`));
          else resolve(JSON.parse(text) as Answer);
        });
        response.on("error", reject);
      });
      call.on("error", reject);
      call.end(body === undefined ? undefined : JSON.stringify(body));
    });
  }
}

/** Waits for a condition with a limit, instead of sleeping. */
export async function eventually(
  what: string,
  holds: () => Promise<boolean> | boolean,
  limitMs = WAIT_LIMIT_MS,
): Promise<void> {
  const deadlineMs = Date.now() + limitMs;
  while (!(await holds())) {
    if (Date.now() > deadlineMs) throw new Error(`waited ${limitMs} ms for ${what}`);
    await delay(POLL_MS);
  }
}

/** Collects what a program prints, until it ends; kills it at the limit. */
export async function finish(child: ChildProcess, limitMs: number): Promise<Finished> {
  const stdout: Buffer[] = [];
  const stderr: Buffer[] = [];
  child.stdout?.on("data", (chunk: Buffer) => stdout.push(chunk));
  child.stderr?.on("data", (chunk: Buffer) => stderr.push(chunk));
  const timer = setTimeout(() => child.kill("SIGKILL"), limitMs);
  const [code] = (await once(child, "close")) as [number | null];
  clearTimeout(timer);
  return {
    code,
    stdout: Buffer.concat(stdout).toString(),
    stderr: Buffer.concat(stderr).toString(),
  };
}

function isUp(status: LocalStatus): boolean {
  const agents = status.nodes.every(({ agent }) => agent === null || agent.up);
  const control = status.control === null || status.control.ready;
  const pods = status.pods.length > 0 && status.pods.every(({ ready }) => ready);
  return status.settled && agents && control && pods;
}
