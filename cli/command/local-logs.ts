import { pipeline } from "node:stream/promises";
import { Command, Option } from "commander";
import { LocalApi } from "../local-api.ts";
import {
  type NameOption,
  type NamespaceOption,
  nameOption,
  namespaceOption,
  parseCount,
} from "./options.ts";

interface LogsOptions extends NameOption, NamespaceOption {
  readonly container?: string;
  readonly follow?: true;
  readonly tail?: number;
}

export function logsCommand(): Command {
  return new Command("logs")
    .description("show what a container has written")
    .argument("<pod>", "its name, or deploy/NAME for a pod of a Deployment")
    .addOption(nameOption())
    .addOption(namespaceOption())
    .addOption(new Option("-c, --container <container>", "the first where none is named"))
    .addOption(new Option("-f, --follow", "go on with what it writes from now on"))
    .addOption(new Option("--tail <lines>", "the last lines only").argParser(parseCount))
    .action(async (pod: string, options: LogsOptions) => {
      const { name, namespace, container, follow = false, tail } = options;
      const log = await new LocalApi(name).logs({ namespace, pod, container }, { follow, tail });
      await pipeline(log, process.stdout, { end: false });
    });
}
