import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { Command } from "commander";
import { MeshError } from "#core/errors.ts";
import { EXIT_FAILED } from "../exit.ts";
import { LOCAL_ROOT, LocalApi } from "../local-api.ts";
import { type NameOption, nameOption } from "./options.ts";

const MAIN = new URL("../../local/main.ts", import.meta.url);
/** Pods have two seconds to end by themselves, and the kernel a moment for its namespaces. */
const DOWN_LIMIT_MS = 30_000;
const POLL_MS = 20;

export function downCommand(): Command {
  return new Command("down")
    .description("stop a runtime, and remove everything it made")
    .addOption(nameOption())
    .action(async ({ name }: NameOption) => {
      const api = new LocalApi(name);
      const isRunning = await api.down().then(
        () => true,
        () => false,
      );
      if (!isRunning) return cleanUp(name);
      const deadlineMs = Date.now() + DOWN_LIMIT_MS;
      while (existsSync(join(LOCAL_ROOT, name))) {
        if (Date.now() > deadlineMs) {
          throw new MeshError("TIMED_OUT", `Cannot stop "${name}": it takes too long`);
        }
        await delay(POLL_MS);
      }
      process.stdout.write(`"${name}" is stopped\n`);
    });
}

/** It may have been killed: what it left behind is removed without it. */
async function cleanUp(name: string): Promise<void> {
  const child = spawn(process.execPath, [fileURLToPath(MAIN), "clean-up"], {
    env: { ...process.env, AQUIFER_LOCAL_NAME: name },
    stdio: "inherit",
  });
  await once(child, "exit");
  process.exitCode = child.exitCode ?? EXIT_FAILED;
}
