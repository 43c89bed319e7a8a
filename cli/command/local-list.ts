import { readdir } from "node:fs/promises";
import { Command } from "commander";
import { LOCAL_ROOT, LocalApi } from "../local-api.ts";
import { formatTable } from "../render/table.ts";
import { outputOption } from "./options.ts";

interface Listed {
  readonly name: string;
  /** null for one that was killed: `down` or `up` removes what it left. */
  readonly pid: number | null;
  readonly mesh: boolean | null;
  readonly nodes: number;
  readonly pods: number;
}

export function listCommand(): Command {
  return new Command("list")
    .description("show the runtimes on this host")
    .addOption(outputOption())
    .action(async ({ output }: { readonly output?: "json" }) => {
      const listed = await list();
      if (output === "json") process.stdout.write(`${JSON.stringify(listed, null, 2)}\n`);
      else if (listed.length === 0) process.stdout.write("no runtime is running\n");
      else process.stdout.write(formatTable(["NAME", "STATE", "NODES", "PODS"], listed.map(rowOf)));
    });
}

async function list(): Promise<readonly Listed[]> {
  const entries = await readdir(LOCAL_ROOT, { withFileTypes: true }).catch(() => []);
  const names = entries.filter((entry) => entry.isDirectory()).map(({ name }) => name);
  return Promise.all(
    names.toSorted().map(async (name): Promise<Listed> => {
      const status = await new LocalApi(name).status().catch(() => undefined);
      if (status === undefined) return { name, pid: null, mesh: null, nodes: 0, pods: 0 };
      const { pid, mesh, nodes, pods } = status;
      return { name, pid, mesh, nodes: nodes.length, pods: pods.length };
    }),
  );
}

function rowOf({ name, pid, mesh, nodes, pods }: Listed): readonly string[] {
  const state = pid === null ? "dead" : mesh ? "mesh" : "no mesh";
  return [name, state, String(nodes), String(pods)];
}
