import { spawn } from "node:child_process";
import { mkdirSync, openSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { Command, Option } from "commander";
import { MeshError } from "#core/errors.ts";
import { LOCAL_ROOT, LocalApi } from "../local-api.ts";
import { collect, filesOption, type NameOption, nameOption } from "./options.ts";

interface UpOptions extends NameOption {
  readonly file: readonly string[];
  readonly nodes: string;
  readonly mesh: boolean;
  readonly detach?: true;
  readonly agentEnv: readonly string[];
  readonly controlEnv: readonly string[];
}

const MAIN = new URL("../../local/main.ts", import.meta.url);
/** A start takes seconds, and then names what it is still waiting for. */
const DETACH_LIMIT_MS = 120_000;
const POLL_MS = 50;

export function upCommand(): Command {
  return new Command("up")
    .description("start a runtime; Ctrl-C stops it and leaves nothing behind")
    .addOption(nameOption())
    .addOption(filesOption("a file or folder of YAML, watched for edits; may be repeated"))
    .addOption(new Option("--nodes <count>", "simulated nodes, n1 to nN").default("2"))
    .addOption(new Option("--no-mesh", "pods without control and agents, for comparison"))
    .addOption(new Option("--detach", "return when everything is ready, and go on"))
    .addOption(variables("--agent-env <NAME=VALUE>", "a setting of the agents"))
    .addOption(variables("--control-env <NAME=VALUE>", "a setting of the control server"))
    .action((options: UpOptions) => (options.detach ? upDetached(options) : up(options)));
}

function variables(flags: string, description: string): Option {
  return new Option(flags, `${description}; may be repeated`)
    .argParser(collect)
    .default([], "none");
}

/** This process becomes the runtime. */
async function up(options: UpOptions): Promise<void> {
  Object.assign(process.env, settingsOf(options));
  process.argv.splice(1, process.argv.length, fileURLToPath(MAIN));
  await import(MAIN.href);
}

async function upDetached(options: UpOptions): Promise<void> {
  mkdirSync(LOCAL_ROOT, { recursive: true });
  const logPath = join(LOCAL_ROOT, `${options.name}.log`);
  rmSync(logPath, { force: true });
  const log = openSync(logPath, "ax", 0o600);
  const child = spawn(process.execPath, [fileURLToPath(MAIN)], {
    env: { ...process.env, ...settingsOf(options), AQUIFER_LOCAL_LOG: logPath },
    stdio: ["ignore", log, log],
    detached: true,
  });
  let hasEnded = false;
  child.once("exit", () => {
    hasEnded = true;
  });
  child.unref();
  const deadlineMs = Date.now() + DETACH_LIMIT_MS;
  let shown = 0;
  const show = () => {
    const text = readFileSync(logPath, "utf8");
    process.stdout.write(text.slice(shown));
    shown = text.length;
  };
  const api = new LocalApi(options.name);
  for (;;) {
    await delay(POLL_MS);
    const settled = hasEnded ? false : await isSettled(api, child.pid);
    show();
    if (settled) return;
    if (hasEnded) {
      rmSync(logPath, { force: true });
      process.exit(child.exitCode ?? 1);
    }
    if (Date.now() > deadlineMs) {
      throw new MeshError("TIMED_OUT", `Cannot start "${options.name}": see ${logPath}`);
    }
  }
}

async function isSettled(api: LocalApi, pid: number | undefined): Promise<boolean> {
  const status = await api.status().catch(() => undefined); // not yet
  return status !== undefined && status.pid === pid && status.settled;
}

function settingsOf(options: UpOptions): Record<string, string> {
  return {
    AQUIFER_LOCAL_NAME: options.name,
    AQUIFER_LOCAL_NODES: options.nodes,
    AQUIFER_LOCAL_MESH: String(options.mesh),
    ...list("AQUIFER_LOCAL_PATHS", options.file),
    ...list("AQUIFER_LOCAL_AGENT_ENV", options.agentEnv),
    ...list("AQUIFER_LOCAL_CONTROL_ENV", options.controlEnv),
  };
}

function list(name: string, values: readonly string[]): Record<string, string> {
  return values.length === 0 ? {} : { [name]: values.join("\n") };
}
