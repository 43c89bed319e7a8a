import { Command } from "commander";
import { LocalApi } from "../local-api.ts";
import { type NameOption, nameOption } from "./options.ts";

export function upgradeCommand(): Command {
  return new Command("upgrade")
    .description("replace running agents by new ones, without a connection lost")
    .argument("[nodes...]", "n1, n2 …; all where none is named")
    .addOption(nameOption())
    .action(async (nodes: readonly string[], { name }: NameOption) => {
      for (const { node, from, to } of await new LocalApi(name).upgrade(nodes)) {
        process.stdout.write(`${node}: process ${to} has taken over from ${from ?? "nobody"}\n`);
      }
    });
}
