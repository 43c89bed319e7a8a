import { spawn } from "node:child_process";
import { once } from "node:events";
import { constants } from "node:os";
import { Command, Option } from "commander";
import { LocalApi } from "../local-api.ts";
import { type NameOption, type NamespaceOption, nameOption, namespaceOption } from "./options.ts";

interface ExecOptions extends NameOption, NamespaceOption {
  readonly container?: string;
}

export function execCommand(): Command {
  return (
    new Command("exec")
      .description("run a command in a pod; its exit code is passed on")
      .argument("<pod>", "its name, or deploy/NAME for a pod of a Deployment")
      .argument("<command...>", "the command and its arguments, best after --")
      .addOption(nameOption())
      .addOption(namespaceOption())
      .addOption(new Option("-c, --container <container>", "the first where none is named"))
      // As people are used to; the command has this terminal either way.
      .addOption(new Option("-i, --stdin").hideHelp())
      .addOption(new Option("-t, --tty").hideHelp())
      .passThroughOptions()
      .action(async (pod: string, command: readonly string[], options: ExecOptions) => {
        const { name, namespace, container } = options;
        const given = command[0] === "--" ? command.slice(1) : command;
        const wrapped = [...terminalOf(process.stdin.isTTY), ...given];
        const answer = await new LocalApi(name).exec({ namespace, pod, container }, wrapped);
        process.exitCode = await runToEnd(answer.command);
      })
  );
}

/** In this terminal. @returns its exit code, 128 and the signal's number where it was killed */
async function runToEnd([file = "", ...args]: readonly string[]): Promise<number> {
  const child = spawn(file, args, { stdio: "inherit" });
  const forward = (signal: NodeJS.Signals) => {
    // In a terminal Ctrl-C reaches the command by itself.
    if (signal !== "SIGINT" || !process.stdin.isTTY) child.kill(signal);
  };
  const signals: readonly NodeJS.Signals[] = ["SIGINT", "SIGTERM", "SIGHUP"];
  for (const signal of signals) process.on(signal, forward);
  await once(child, "exit");
  for (const signal of signals) process.off(signal, forward);
  const { exitCode, signalCode } = child;
  return exitCode ?? 128 + (signalCode === null ? 0 : constants.signals[signalCode]);
}

/** The pod's environment is its own; only what the terminal is it cannot know. */
function terminalOf(isTty: boolean): readonly string[] {
  const { TERM } = process.env;
  return isTty && TERM !== undefined ? ["env", `TERM=${TERM}`] : [];
}
