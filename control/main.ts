/** The control process. `token` prints a node token instead of serving. */
import { readFileSync } from "node:fs";
import { parseArgs } from "node:util";
import type { Clock } from "#core/clock.ts";
import { MeshError, reasonOf } from "#core/errors.ts";
import { issueNodeToken } from "./authority/token.ts";
import { readConfig, readTokenConfig } from "./config.ts";
import { Control } from "./lifecycle.ts";
import { openLog } from "./log.ts";

const USAGE = `usage: aquifer control
       aquifer control token --node NAME [--ttl 24h]`;

const EXIT_FAILED = 1;
const EXIT_MISUSED = 2;

/** Streams end at once, so this is for a peer or a disk that hangs. */
const STOP_LIMIT_MS = 5_000;

const clock: Clock = { nowMs: () => Date.now() };

async function serve(): Promise<void> {
  const config = readConfig(process.env);
  const log = openLog(config.log);
  const control = new Control({ config, version: readVersion(), log, clock });
  let isStopping = false;
  const stop = (signal: string) => {
    if (isStopping) return;
    isStopping = true;
    log.info({ signal }, "stopping");
    setTimeout(() => process.exit(EXIT_FAILED), STOP_LIMIT_MS).unref();
    control.stop().then(
      () => process.exit(),
      (error: unknown) => {
        log.error(`Cannot stop in order: ${reasonOf(error)}`);
        process.exit(EXIT_FAILED);
      },
    );
  };
  process.on("SIGTERM", stop);
  process.on("SIGINT", stop);
  try {
    await control.start();
  } catch (error) {
    if (!isStopping) throw error;
  }
}

async function printToken(args: readonly string[]): Promise<void> {
  const { values } = parseArgs({
    args: [...args],
    options: { node: { type: "string" }, ttl: { type: "string" } },
  });
  const config = readTokenConfig(process.env, values);
  process.stdout.write(`${await issueNodeToken({ ...config, clock })}\n`);
}

function readVersion(): string {
  const file = new URL("../package.json", import.meta.url);
  // Our own file, and checked in.
  return (JSON.parse(readFileSync(file, "utf8")) as { version: string }).version;
}

async function main([command, ...args]: readonly string[]): Promise<void> {
  if (command === undefined) return serve();
  if (command === "token") return printToken(args);
  throw new MeshError("SETTINGS_INVALID", `Cannot run "${command}": no such command\n${USAGE}`);
}

try {
  await main(process.argv.slice(2));
} catch (error) {
  const isMisuse =
    (error instanceof MeshError && error.code === "SETTINGS_INVALID") ||
    (error instanceof TypeError && "code" in error && String(error.code).startsWith("ERR_PARSE"));
  if (!isMisuse) throw error;
  process.stderr.write(`${reasonOf(error)}\n`);
  process.exit(EXIT_MISUSED);
}
