import { enableCompileCache } from "node:module";
import { join } from "node:path";
import { MeshError, reasonOf } from "#core/errors.ts";
import { type AgentConfig, readConfig } from "./config.ts";
import type { Agent } from "./lifecycle.ts";
import { Loggers } from "./log.ts";

/** Everything the agent writes (sockets, state, pins) is its owner's alone. */
process.umask(0o077);

if (process.argv.length > 2) {
  const { runProbe } = await import("./probe-command.ts");
  process.exit(await runProbe(process.argv.slice(2), process.env));
}

const config = readConfigOrExit();
const loggers = new Loggers(config.log);
const log = loggers.for("agent");

for (const event of ["uncaughtException", "unhandledRejection"] as const) {
  process.on(event, (error: unknown) => {
    log.fatal({ err: error }, `ended by a bug: ${reasonOf(error)}`);
    process.exit(1);
  });
}

let agent: Agent | undefined;
let isStopping = false;

const stop = (why: string) => {
  if (isStopping) process.exit(1);
  isStopping = true;
  log.info({ why, drainLimitMs: config.drainLimitMs }, "shutting down");
  void stopAndExit();
};
for (const signal of ["SIGTERM", "SIGINT"] as const) process.on(signal, () => stop(signal));

try {
  // Until it is back, an agent that was killed has its pods refused: compiled code halves that
  // time. The cache is in our own directory, for the usual one is anybody's to write.
  enableCompileCache(join(config.stateDir, "compiled"));
  const { startAgent } = await import("./lifecycle.ts");
  agent = await startAgent(config, loggers, {
    onQuit: () => stop("quitquitquit"),
    onReplaced: () => {
      log.info("ended: another agent has taken over");
      process.exit(0);
    },
  });
} catch (error) {
  if (!(error instanceof MeshError)) throw error;
  log.fatal({ code: error.code, error: reasonOf(error) }, "cannot start");
  process.exit(1);
}

async function stopAndExit(): Promise<void> {
  // Before it has started, what there is of it ends with the process.
  await agent?.stop();
  log.info("ended");
  process.exit(0);
}

function readConfigOrExit(): AgentConfig {
  try {
    return readConfig(process.env);
  } catch (error) {
    if (!(error instanceof MeshError)) throw error;
    process.stderr.write(`${error.message}\n`);
    process.exit(2);
  }
}
