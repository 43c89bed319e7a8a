import { existsSync, readdirSync, readFileSync } from "node:fs";
import path from "node:path";

/** A file of ours, as text. Built and installed things are not among them. */
export interface SourceFile {
  /** From the root of the project, with slashes. */
  readonly path: string;
  readonly text: string;
  readonly lines: readonly string[];
}

export interface Problem {
  readonly path: string;
  /** From 1. */
  readonly line: number;
  readonly text: string;
}

/** What a rule looks at. Rules read nothing else, so that a test can write a project by hand. */
export interface Project {
  readonly files: readonly SourceFile[];
}

export type Rule = (project: Project) => Problem[];

const NOT_OURS = new Set(["node_modules", "build", ".git"]);
const TEXT = /\.(ts|mjs|js|c|h|cc|md|sh|yaml|yml|json|proto|bt|gyp)$|\/(run|setup|build|generate)$/;

export function readProject(root: string): Project {
  const files = listFiles(root, "")
    .filter((file) => TEXT.test(file) && file !== "package-lock.json")
    .map((file) => sourceFile(file, readFileSync(path.join(root, file), "utf8")));
  return { files };
}

export function sourceFile(filePath: string, text: string): SourceFile {
  return { path: filePath, text, lines: text.split("\n") };
}

export function isGenerated(file: SourceFile): boolean {
  return file.path.startsWith("wire/gen/");
}

export function isTest(file: SourceFile): boolean {
  return file.path.endsWith(".test.ts") || file.path.startsWith("test/");
}

export function isTypeScript(file: SourceFile): boolean {
  return file.path.endsWith(".ts") && !isGenerated(file);
}

/** The first folder of a path, "" for a file at the root. */
export function partOf(filePath: string): string {
  return filePath.includes("/") ? filePath.slice(0, filePath.indexOf("/")) : "";
}

function listFiles(root: string, folder: string): string[] {
  const at = path.join(root, folder);
  if (!existsSync(at)) return [];
  return readdirSync(at, { withFileTypes: true }).flatMap((entry) => {
    const below = folder === "" ? entry.name : `${folder}/${entry.name}`;
    if (entry.isDirectory()) return NOT_OURS.has(entry.name) ? [] : listFiles(root, below);
    return entry.isFile() ? [below] : [];
  });
}
