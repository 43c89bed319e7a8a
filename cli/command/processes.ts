/** The mesh's own processes: `aquifer agent`, `control` and `waypoint`. */
import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { Command, Option } from "commander";
import { MeshError } from "#core/errors.ts";

const CONTROL_HELP = `
  aquifer control                               serves
  aquifer control token --node NAME [--ttl 24h] prints a token by which a node proves its name`;

export function processCommands(): readonly Command[] {
  return [
    processCommand("agent", "run the agent of this node (settings: environment)")
      .option("--probe", "only tell how pods would be captured on this host, and what it costs")
      .addOption(new Option("-o <format>", "of --probe").choices(["json"])),
    processCommand("control", "run the control server (settings: environment)")
      .addHelpText("after", CONTROL_HELP)
      .argument("[arguments...]", "passed on")
      .passThroughOptions()
      .allowUnknownOption(),
    processCommand("waypoint", "run a waypoint: not part of this release yet"),
  ];
}

function processCommand(name: string, description: string): Command {
  return new Command(name).description(description).action(async () => {
    const main = new URL(`../../${name}/main.ts`, import.meta.url);
    if (!existsSync(main)) throw new MeshError("COMMAND_FAILED", `Cannot find "${main.pathname}"`);
    // The process reads its own arguments, as if it had been started by itself.
    process.argv.splice(1, 2, fileURLToPath(main));
    await import(main.href);
  });
}
