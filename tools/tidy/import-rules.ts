/** Which part of the project may import what: the table of docs/architecture.md. */
import { isTypeScript, type Problem, type Project, partOf, type SourceFile } from "./project.ts";

interface MayImport {
  /** Other parts than itself. */
  readonly parts: readonly string[];
  /** `node:*`. */
  readonly node: boolean;
  /** Packages: all that package.json lists, or these. */
  readonly packages: "all" | readonly string[];
}

const WIRE_PACKAGES = ["@bufbuild/protobuf", "@grpc/grpc-js", "@peculiar/x509", "reflect-metadata"];

export const MAY_IMPORT: Readonly<Record<string, MayImport>> = {
  core: { parts: [], node: false, packages: [] },
  wire: { parts: ["core"], node: true, packages: WIRE_PACKAGES },
  native: { parts: ["core"], node: true, packages: [] },
  agent: { parts: ["core", "wire", "native"], node: true, packages: "all" },
  waypoint: { parts: ["core", "wire"], node: true, packages: "all" },
  control: { parts: ["core", "wire"], node: true, packages: "all" },
  // It starts the other processes, it does not import them.
  local: { parts: ["core", "native"], node: true, packages: "all" },
  // It asks the processes over their APIs.
  cli: { parts: ["core", "wire"], node: true, packages: "all" },
  examples: { parts: ["core"], node: true, packages: "all" },
  tools: { parts: ["core", "wire"], node: true, packages: "all" },
};

/** May import everything, and are imported by nobody but tests. */
const LEAVES = ["test", "bench"];

export function importRule(project: Project): Problem[] {
  const listed = packagesListed(project);
  return project.files.filter(isTypeScript).flatMap((file) =>
    importsOf(file).flatMap(({ line, specifier }) => {
      const text = whatIsWrong(file, specifier, listed);
      return text === undefined ? [] : [{ path: file.path, line, text }];
    }),
  );
}

interface Listed {
  readonly run: ReadonlySet<string>;
  readonly develop: ReadonlySet<string>;
}

function packagesListed({ files }: Project): Listed {
  const text = files.find(({ path }) => path === "package.json")?.text ?? "{}";
  const { dependencies, devDependencies } = JSON.parse(text) as {
    dependencies?: Record<string, string>;
    devDependencies?: Record<string, string>;
  };
  return {
    run: new Set(Object.keys(dependencies ?? {})),
    develop: new Set(Object.keys(devDependencies ?? {})),
  };
}

interface Import {
  readonly specifier: string;
  readonly line: number;
}

/** Static, dynamic and type imports, and re-exports; a name that is computed is not found. */
export function importsOf({ text }: SourceFile): Import[] {
  const patterns = [
    /^\s*(?:import|export)\s[\w\s{},*$]*\bfrom\s*"([^"\n]+)"/gm,
    /^\s*import\s*"([^"\n]+)"/gm,
    /\bimport\("([^"\n]+)"/g,
  ];
  return patterns
    .flatMap((pattern) => [...text.matchAll(pattern)])
    .map((match) => ({
      specifier: match[1] ?? "",
      line: text.slice(0, match.index + match[0].length).split("\n").length,
    }));
}

function whatIsWrong(file: SourceFile, specifier: string, listed: Listed): string | undefined {
  const part = partOf(file.path);
  const may = MAY_IMPORT[part];
  const isTest = file.path.endsWith(".test.ts") || LEAVES.includes(part);
  if (specifier.startsWith("node:")) {
    return may?.node === false && !isTest ? `${part}/ is pure: no ${specifier}` : undefined;
  }
  const target = targetPart(file.path, specifier);
  if (target === undefined) return wrongPackage(specifier, may, isTest, part, listed);
  if (target === part || LEAVES.includes(part)) return undefined;
  if (target === "test" && isTest) return undefined;
  if (LEAVES.includes(target)) return `${target}/ is imported by nobody`;
  if (may === undefined) return `${part}/ stands in no row of tools/tidy/import-rules.ts`;
  if (!may.parts.includes(target)) return `${part}/ may not import ${target}/`;
  return specifier.startsWith("#") ? undefined : `write it as #${target}/…`;
}

/** @returns undefined for a package */
function targetPart(from: string, specifier: string): string | undefined {
  if (specifier.startsWith("#")) return partOf(specifier.slice(1));
  if (!specifier.startsWith(".")) return undefined;
  return partOf(new URL(specifier, `file:///${from}`).pathname.slice(1));
}

function wrongPackage(
  specifier: string,
  may: MayImport | undefined,
  isTest: boolean,
  part: string,
  { run, develop }: Listed,
): string | undefined {
  const name = specifier.split("/", specifier.startsWith("@") ? 2 : 1).join("/");
  const isListed = run.has(name) || ((isTest || part === "tools") && develop.has(name));
  if (!isListed) return `package.json does not list "${name}" for this`;
  if (isTest || may === undefined || may.packages === "all") return undefined;
  return may.packages.includes(name) ? undefined : `${part}/ may not import "${name}"`;
}
