/** The command line, as a person calls it. */
import { spawn } from "node:child_process";
import { join } from "node:path";
import { type Finished, finish } from "../support/local-mesh.ts";

export const CLI = join(import.meta.dirname, "../../bin/aquifer.mjs");

const LIMIT_MS = 60_000;

export interface CallOptions {
  readonly input?: string;
  readonly cwd?: string;
}

export function aquifer(
  args: readonly string[],
  { input = "", cwd }: CallOptions = {},
): Promise<Finished> {
  const child = spawn(CLI, args, {
    stdio: ["pipe", "pipe", "pipe"],
    ...(cwd === undefined ? {} : { cwd }),
  });
  child.stdin.end(input);
  return finish(child, LIMIT_MS);
}
