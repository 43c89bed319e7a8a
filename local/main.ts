/**
 * The local runtime: `aquifer local up`.
 *
 *   node local/main.ts           runs until SIGINT, SIGTERM or a request for the end
 *   node local/main.ts clean-up  removes what a runtime that was killed has left
 */
import { rm } from "node:fs/promises";
import { MeshError, reasonOf } from "#core/errors.ts";
import { type LocalConfig, readConfig } from "./config.ts";
import { type Running, removeLeftOvers, start } from "./lifecycle.ts";

const EXIT_FAILED = 1;
const EXIT_MISUSED = 2;

/** Pods get a moment to end by themselves when everything ends. */
const DOWN_GRACE_MS = 2_000;
/** What is not ready by then is named, and everything goes on. */
const SETTLE_LIMIT_MS = 60_000;

const say = (line: string) => process.stdout.write(`${line}\n`);

let running: Running | undefined;
let isEnding = false;
let logPath: string | undefined;

try {
  const config = readConfig(process.env, process.cwd());
  if (process.argv[2] === "clean-up") {
    const hadRemains = await removeLeftOvers(config, say);
    say(hadRemains ? `"${config.name}" is removed` : `"${config.name}" is not running`);
  } else {
    await up(config);
  }
} catch (error) {
  if (!isEnding) fail(error);
}

async function up(config: LocalConfig): Promise<void> {
  const startedAtMs = Date.now();
  logPath = config.logPath;
  const seconds = () => `${((Date.now() - startedAtMs) / 1_000).toFixed(1)} s`;
  const asked = new AbortController();
  const ask = () => {
    // Until it has started there is nothing to stop in order: the start fails, and cleans up.
    asked.abort();
    if (running !== undefined) void end(DOWN_GRACE_MS);
  };
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.on(signal, ask);
  process.on("uncaughtException", crash);

  const mesh = config.mesh ? "with the mesh" : "without a mesh";
  say(`starting "${config.name}": ${config.nodes} nodes, ${mesh}`);
  running = await start(config, { say, onDown: ask }, asked.signal);
  if (asked.signal.aborted) return end(0);
  say(`${config.mesh ? "control, agents and DNS are" : "the DNS is"} up after ${seconds()}`);
  const isSettled = await running.settled(SETTLE_LIMIT_MS);
  if (isEnding) return;
  const { runtime } = running;
  const ready = runtime.pods.filter((pod) => pod.ready).length;
  if (isSettled) say(`ready: ${ready} pods after ${seconds()}`);
  else say(`${ready} of ${runtime.pods.length} pods are ready after ${seconds()}`);
  const option = config.name === "default" ? "" : ` --name ${config.name}`;
  say(`  aquifer local status${option}            what runs, and where`);
  say(`  aquifer local exec${option} POD -- CMD   a command in a pod`);
  say(`  aquifer local down${option}              stop, and leave nothing behind (or Ctrl-C)`);
}

async function end(graceMs: number): Promise<void> {
  if (isEnding) return;
  isEnding = true;
  say("stopping");
  try {
    await running?.stop(graceMs);
  } catch (error) {
    fail(error);
  }
  say("stopped");
  if (logPath !== undefined) await rm(logPath, { force: true });
  process.exit(process.exitCode ?? 0);
}

/** A bug of ours: what was made is removed all the same. */
function crash(error: unknown): void {
  process.exitCode = EXIT_FAILED;
  process.stderr.write(`${error instanceof Error ? error.stack : String(error)}\n`);
  if (isEnding) process.exit();
  void end(0);
}

function fail(error: unknown): never {
  process.stderr.write(`${reasonOf(error)}\n`);
  if (!(error instanceof MeshError) && error instanceof Error) {
    process.stderr.write(`${error.stack}\n`);
  }
  const isMisuse = error instanceof MeshError && error.code === "SETTINGS_INVALID";
  process.exit(isMisuse ? EXIT_MISUSED : EXIT_FAILED);
}
