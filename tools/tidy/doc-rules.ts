/** Documentation that names things of the code names things that are there, and all of them. */
import path from "node:path";
import type { Problem, Project, Rule, SourceFile } from "./project.ts";

export const docRules: readonly Rule[] = [
  brokenLinks,
  brokenCitations,
  ({ files }) => compare(files, "docs/settings.md", /^[A-Z][A-Z0-9_]*[A-Z0-9]$/, settingsIn(files)),
  ({ files }) => compare(files, "docs/errors.md", /^[A-Z][A-Z_]+$/, codesIn(files)),
  ({ files }) => compare(files, "docs/metrics.md", /^[a-z]+(_[a-z]+)+$/, metricsIn(files)),
  ({ files }) => compare(files, "docs/metrics.md", /^[a-z]+([A-Z][a-z]+)*$/, eventsIn(files)),
  ({ files }) => compare(files, "docs/decisions/0002-dependencies.md", /./, packagesIn(files)),
];

interface Names {
  /** What must be documented, with where it stands. */
  readonly names: ReadonlyMap<string, SourceFile>;
  /** What may be: names that the code puts together. */
  readonly patterns: readonly RegExp[];
}

/** Compares the first column of a document's tables with the code. */
function compare(
  files: readonly SourceFile[],
  docPath: string,
  shape: RegExp,
  { names, patterns }: Names,
): Problem[] {
  const doc = files.find((file) => file.path === docPath);
  if (doc === undefined || names.size === 0) return [];
  const documented = new Map<string, number>();
  for (const [index, line] of doc.lines.entries()) {
    const cell = /^\|([^|]*)\|/.exec(line)?.[1] ?? "";
    for (const [, name] of cell.matchAll(/`([^`]+)`/g)) {
      if (name !== undefined && shape.test(name)) documented.set(name, index + 1);
    }
  }
  const isKnown = (name: string) =>
    names.has(name) || patterns.some((pattern) => pattern.test(name));
  const unknown = [...documented]
    .filter(([name]) => !isKnown(name))
    .map(([name, line]) => ({ path: docPath, line, text: `"${name}" is not in the code` }));
  const missing = [...names]
    .filter(([name]) => !documented.has(name))
    .map(([name, file]) => ({ path: file.path, line: 1, text: `${docPath} lacks "${name}"` }));
  return [...unknown, ...missing];
}

/** A setting that is read by name, or refused by name, or one of ours. */
const SETTING_READ =
  /(?:\.required|\.optional|readAddress)\([^"`;)]*?"([A-Z][A-Z0-9_]+)"|"(AQUIFER_[A-Z0-9_]+)"/g;
const SETTING_REFUSED = /^ {2}([A-Z][A-Z0-9_]+): \{ unless/gm;
const SETTING_COMPOSED = /`([A-Z_]*)\$\{\w+\}([A-Z_]*)`/g;

function settingsIn(files: readonly SourceFile[]): Names {
  const names = new Map<string, SourceFile>();
  const patterns: RegExp[] = [];
  for (const file of files.filter(({ path: at }) => /\/config\.ts$/.test(at))) {
    for (const match of file.text.matchAll(SETTING_READ)) {
      names.set(match[1] ?? match[2] ?? "", file);
    }
    for (const match of file.text.matchAll(SETTING_REFUSED)) names.set(match[1] ?? "", file);
    for (const [, before = "", after = ""] of file.text.matchAll(SETTING_COMPOSED)) {
      if (before + after !== "") patterns.push(new RegExp(`^${before}[A-Z0-9]+${after}$`));
    }
  }
  return { names, patterns };
}

function codesIn(files: readonly SourceFile[]): Names {
  const file = files.find(({ path: at }) => at === "core/errors.ts");
  const codes = [...(file?.text ?? "").matchAll(/^ {2}([A-Z_]+): \{ side/gm)];
  const names = codes.flatMap(([, code]) => (code && file ? [[code, file] as const] : []));
  return { names: new Map(names), patterns: [] };
}

function metricsIn(files: readonly SourceFile[]): Names {
  const names = new Map<string, SourceFile>();
  for (const file of files.filter(({ path: at }) => /^[a-z]+\/metrics\.ts$/.test(at))) {
    for (const [, name] of file.text.matchAll(/"((?:istio|aquifer|workload|pilot)_[a-z_]+)"/g)) {
      if (name !== undefined) names.set(name, file);
    }
  }
  return { names, patterns: [] };
}

const COUNTED = /^export const (?:[A-Z]+_)?COUNTERS = \[([^\]]*)\]/gm;

/** What the kernel's programs count. */
function eventsIn(files: readonly SourceFile[]): Names {
  const names = new Map<string, SourceFile>();
  for (const file of files.filter(({ path: at }) => /^agent\/kernel\/.*layout\.ts$/.test(at))) {
    for (const [, list = ""] of file.text.matchAll(COUNTED)) {
      for (const [, name = ""] of list.matchAll(/"(\w+)"/g)) names.set(name, file);
    }
  }
  return { names, patterns: [] };
}

function packagesIn(files: readonly SourceFile[]): Names {
  const file = files.find(({ path: at }) => at === "package.json");
  if (file === undefined) return { names: new Map(), patterns: [] };
  const lists = JSON.parse(file.text) as Record<string, Record<string, string> | undefined>;
  const names = ["dependencies", "optionalDependencies", "devDependencies"]
    .flatMap((list) => Object.keys(lists[list] ?? {}))
    .map((name) => [name, file] as const);
  return { names: new Map(names), patterns: [] };
}

/** Links to files and headings of the project. Other people's pages are not asked for. */
function brokenLinks({ files }: Project): Problem[] {
  const byPath = new Map(files.map((file) => [file.path, file]));
  const folders = new Set(files.flatMap(({ path: at }) => foldersOf(at)));
  return files
    .filter(({ path: at }) => at.endsWith(".md"))
    .flatMap((file) =>
      linksIn(file).flatMap(({ target, line }) => {
        const text = whatIsBroken(file, target, byPath, folders);
        return text === undefined ? [] : [{ path: file.path, line, text }];
      }),
    );
}

/** Documents that comments of the code cite. */
function brokenCitations({ files }: Project): Problem[] {
  const paths = new Set(files.map((file) => file.path));
  return files
    .filter((file) => /\.(ts|c|h|cc)$/.test(file.path) && !file.path.startsWith("tools/tidy"))
    .flatMap((file) =>
      file.lines.flatMap((line, index) =>
        [...line.matchAll(/\bdocs\/[\w/-]+\.md\b/g)]
          .map(([cited]) => cited)
          .filter((cited) => !paths.has(cited) && !line.includes("://"))
          .map((cited) => ({ path: file.path, line: index + 1, text: `there is no ${cited}` })),
      ),
    );
}

function foldersOf(filePath: string): string[] {
  const names = filePath.split("/").slice(0, -1);
  return names.map((_, index) => names.slice(0, index + 1).join("/"));
}

function linksIn({ lines }: SourceFile): { target: string; line: number }[] {
  return lines.flatMap((line, index) =>
    [...line.matchAll(/\]\(([^)\s]+)\)/g)].map(([, target = ""]) => ({ target, line: index + 1 })),
  );
}

/** Files that the project has and that are not read as text. */
const UNREAD = /^(bpf\/)?LICENSE[\w.-]*$/;

function whatIsBroken(
  file: SourceFile,
  target: string,
  byPath: ReadonlyMap<string, SourceFile>,
  folders: ReadonlySet<string>,
): string | undefined {
  if (/^[a-z]+:/.test(target)) return undefined;
  const [relative = "", heading] = target.split("#");
  const at =
    relative === "" ? file.path : path.join(path.dirname(file.path), relative).replace(/\/$/, "");
  if (folders.has(at) || UNREAD.test(at)) return undefined;
  const linked = byPath.get(at);
  if (linked === undefined) return `"${target}" leads nowhere`;
  if (heading === undefined || headingsOf(linked).has(heading)) return undefined;
  return `"${at}" has no heading "${heading}"`;
}

/** As GitHub makes them: lower case, no punctuation, hyphens for spaces. */
function headingsOf({ lines }: SourceFile): Set<string> {
  return new Set(
    lines
      .flatMap((line) => /^#+ (.*)$/.exec(line)?.[1] ?? [])
      .map((text) =>
        text
          .toLowerCase()
          .replace(/[^\w\s-]/g, "")
          .replaceAll(" ", "-"),
      ),
  );
}
