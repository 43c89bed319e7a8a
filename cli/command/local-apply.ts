import { Command } from "commander";
import { LocalApi } from "../local-api.ts";
import { showAnswer } from "../render/problems.ts";
import { readFiles } from "./files.ts";
import { filesOption, type NameOption, nameOption, outputOption } from "./options.ts";

interface ApplyOptions extends NameOption {
  readonly file: readonly string[];
  readonly output?: "json";
}

export function applyCommand(): Command {
  return new Command("apply")
    .description("add objects, or give them a new version")
    .addOption(nameOption())
    .addOption(filesOption("a file, a folder, or - for standard input").makeOptionMandatory())
    .addOption(outputOption())
    .action(async ({ name, file, output }: ApplyOptions, command: Command) => {
      if (file.length === 0) command.error("error: name what to apply with -f", { exitCode: 2 });
      const answer = await new LocalApi(name).apply(await readFiles(file));
      showAnswer(answer, output === "json");
    });
}
