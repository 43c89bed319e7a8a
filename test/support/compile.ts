import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

export interface CompiledProgram {
  readonly path: string;
  remove(): void;
}

/** Compiles a C file of a test for this host. @throws Error with the compiler's output */
export function compileC(source: string, flags: readonly string[] = []): CompiledProgram {
  const dir = mkdtempSync(join(tmpdir(), "aquifer-test-"));
  const remove = () => rmSync(dir, { recursive: true, force: true });
  const path = join(dir, "program");
  try {
    execFileSync("gcc", ["-std=gnu11", "-O1", "-Wall", "-Wextra", ...flags, "-o", path, source], {
      stdio: ["ignore", "ignore", "pipe"],
    });
  } catch (error) {
    remove();
    throw error;
  }
  return { path, remove };
}
