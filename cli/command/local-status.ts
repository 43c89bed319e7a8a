import { Command } from "commander";
import { LocalApi } from "../local-api.ts";
import { formatStatus } from "../render/status.ts";
import { type NameOption, nameOption, outputOption } from "./options.ts";

export function statusCommand(): Command {
  return new Command("status")
    .description("show nodes, pods, services, and what is wrong")
    .addOption(nameOption())
    .addOption(outputOption())
    .action(async ({ name, output }: NameOption & { readonly output?: "json" }) => {
      const status = await new LocalApi(name).status();
      const text = output === "json" ? `${JSON.stringify(status, null, 2)}\n` : undefined;
      process.stdout.write(text ?? formatStatus(status, Date.now()));
    });
}
