import { Command } from "commander";
import { LocalApi, type ObjectReference } from "../local-api.ts";
import { showAnswer } from "../render/problems.ts";
import { readFiles } from "./files.ts";
import {
  filesOption,
  type NameOption,
  type NamespaceOption,
  nameOption,
  namespaceOption,
  outputOption,
} from "./options.ts";

interface DeleteOptions extends NameOption, NamespaceOption {
  readonly file: readonly string[];
  readonly output?: "json";
}

/** As people write them; every other kind is taken as it is written. */
const KINDS: Readonly<Record<string, string>> = {
  pod: "Pod",
  pods: "Pod",
  po: "Pod",
  deployment: "Deployment",
  deployments: "Deployment",
  deploy: "Deployment",
  service: "Service",
  services: "Service",
  svc: "Service",
  namespace: "Namespace",
  namespaces: "Namespace",
  ns: "Namespace",
  serviceaccount: "ServiceAccount",
  sa: "ServiceAccount",
  authorizationpolicy: "AuthorizationPolicy",
  peerauthentication: "PeerAuthentication",
};

export function deleteCommand(): Command {
  return new Command("delete")
    .description("remove objects, by file or by name")
    .argument("[objects...]", "KIND/NAME, as pod/web or deployment/cart")
    .addOption(nameOption())
    .addOption(namespaceOption())
    .addOption(filesOption("what is in these files"))
    .addOption(outputOption())
    .action(async (named: readonly string[], options: DeleteOptions, command: Command) => {
      if (named.length === 0 && options.file.length === 0) {
        command.error("error: name what to delete, as KIND/NAME or with -f", { exitCode: 2 });
      }
      const objects = named.map((text) => {
        const [kind, name, ...rest] = text.split("/");
        if (kind === undefined || name === undefined || rest.length > 0) {
          return command.error(`error: expected KIND/NAME, not "${text}"`, { exitCode: 2 });
        }
        return referenceOf(kind, name, options.namespace);
      });
      const files = await readFiles(options.file);
      const answer = await new LocalApi(options.name).delete({ files, objects });
      showAnswer(answer, options.output === "json");
    });
}

function referenceOf(kind: string, name: string, namespace: string): ObjectReference {
  const known = KINDS[kind.toLowerCase()] ?? kind;
  return { kind: known, namespace: known === "Namespace" ? "" : namespace, name };
}
