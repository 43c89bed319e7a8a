/** `aquifer local …`: a mesh on this host. */
import { Command } from "commander";
import { applyCommand } from "./local-apply.ts";
import { deleteCommand } from "./local-delete.ts";
import { downCommand } from "./local-down.ts";
import { execCommand } from "./local-exec.ts";
import { listCommand } from "./local-list.ts";
import { logsCommand } from "./local-logs.ts";
import { scaleCommand } from "./local-scale.ts";
import { statusCommand } from "./local-status.ts";
import { upCommand } from "./local-up.ts";
import { upgradeCommand } from "./local-upgrade.ts";

export function localCommand(): Command {
  const command = new Command("local")
    .description("run Kubernetes YAML on this host: pods as processes on simulated nodes")
    .enablePositionalOptions();
  for (const sub of [
    upCommand(),
    downCommand(),
    applyCommand(),
    deleteCommand(),
    scaleCommand(),
    upgradeCommand(),
    execCommand(),
    logsCommand(),
    statusCommand(),
    listCommand(),
  ]) {
    command.addCommand(sub);
  }
  return command;
}
