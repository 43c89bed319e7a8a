/** `aquifer`: the command line. Each verb is a file in command/. */
import { Command, CommanderError } from "commander";
import { MeshError, reasonOf } from "#core/errors.ts";
import { localCommand } from "./command/local.ts";
import { processCommands } from "./command/processes.ts";
import { traceCommand } from "./command/trace.ts";
import { EXIT_FAILED, EXIT_MISUSED } from "./exit.ts";
import { readVersion } from "./version.ts";

// `aquifer … | head` closes the pipe: whoever reads no more wants no more.
process.stdout.on("error", (error: Error & { code?: string }) => {
  if (error.code !== "EPIPE") throw error;
  process.exit(0);
});

const program = new Command("aquifer")
  .description("A sidecarless service mesh for Linux")
  .version(readVersion())
  .enablePositionalOptions()
  .showHelpAfterError("(see --help)")
  .exitOverride();
for (const command of processCommands()) program.addCommand(command);
program.addCommand(localCommand());
program.addCommand(traceCommand());
inherit(program);

try {
  await program.parseAsync();
} catch (error) {
  if (error instanceof CommanderError) process.exit(error.exitCode === 0 ? 0 : EXIT_MISUSED);
  if (!(error instanceof MeshError)) throw error;
  process.stderr.write(`${reasonOf(error)}\n`);
  process.exit(error.code === "SETTINGS_INVALID" ? EXIT_MISUSED : EXIT_FAILED);
}

/** Commands that are added, not made here, do not take over how errors are shown. */
function inherit(parent: Command): void {
  for (const command of parent.commands) {
    command.copyInheritedSettings(parent);
    inherit(command);
  }
}
