import { Command, Option } from "commander";
import { LocalApi } from "../local-api.ts";
import {
  type NameOption,
  type NamespaceOption,
  nameOption,
  namespaceOption,
  parseCount,
} from "./options.ts";

interface ScaleOptions extends NameOption, NamespaceOption {
  readonly replicas: number;
}

export function scaleCommand(): Command {
  return new Command("scale")
    .description("set how many pods a Deployment has")
    .argument("<deployment>", "its name")
    .addOption(nameOption())
    .addOption(namespaceOption())
    .addOption(new Option("--replicas <count>", "pods").argParser(parseCount).makeOptionMandatory())
    .action(async (given: string, { name, namespace, replicas }: ScaleOptions) => {
      const deployment = given.replace(/^deploy(ment)?\//, "");
      await new LocalApi(name).scale(namespace, deployment, replicas);
      process.stdout.write(`Deployment ${namespace}/${deployment} scaled to ${replicas}\n`);
    });
}
