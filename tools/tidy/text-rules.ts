/** Rules that look at one line, or one file, at a time. */
import {
  isGenerated,
  isTest,
  isTypeScript,
  type Problem,
  partOf,
  type Rule,
  type SourceFile,
} from "./project.ts";

const LINES_MAX = 600;
const COLUMNS_MAX = 100;
const TAB_COLUMNS = 8;

/** They hold what they look for. */
const RULES_THEMSELVES = "tools/tidy/";

/** The only file that may skip a test, because it proves that the kernel is too old for it. */
const MAY_SKIP = "test/support/kernel.ts";

/** Where the environment may be read: a process's own settings, and what starts processes. */
const MAY_READ_ENVIRONMENT =
  /(^|\/)(main|config)\.ts$|\.test\.ts$|^(test|tools|bench|examples|bin|cli)\//;

export const textRules: readonly Rule[] = [
  everyFile(tooLong),
  everyLine(tooWide),
  everyLine(todoWithoutIssue),
  everyLine(skippedTest),
  everyLine(environmentRead),
  everyLine(machinePath),
  everyFile(missingLicence),
  everyFile(undocumentedExports),
  everyFile(testOfNoTier),
];

function everyFile(check: (file: SourceFile) => Problem[]): Rule {
  return ({ files }) => files.filter((file) => !isGenerated(file)).flatMap(check);
}

/** @param check  says what is wrong with a line, or undefined */
function everyLine(check: (line: string, file: SourceFile) => string | undefined): Rule {
  return everyFile((file) =>
    linesOutsideFences(file).flatMap(([line, index]) => {
      const text = check(line, file);
      return text === undefined ? [] : [{ path: file.path, line: index + 1, text }];
    }),
  );
}

/** Every line with its index; of Markdown, those that are prose. */
function linesOutsideFences({ path, lines }: SourceFile): (readonly [string, number])[] {
  let isFenced = false;
  return lines.flatMap((line, index) => {
    const isFence = path.endsWith(".md") && /^\s*```/.test(line);
    if (isFence) isFenced = !isFenced;
    return isFenced || isFence ? [] : [[line, index] as const];
  });
}

function tooLong(file: SourceFile): Problem[] {
  const count = file.lines.length - 1;
  if (count <= LINES_MAX || !/\.(ts|mjs|c|h|cc)$/.test(file.path)) return [];
  return [
    { path: file.path, line: count, text: `${count} lines; a file has ${LINES_MAX} at most` },
  ];
}

function tooWide(line: string, { path }: SourceFile): string | undefined {
  if (/\.(json|yaml|yml|proto)$/.test(path)) return undefined;
  // A table row, an address, and what bpftrace prints cannot be broken.
  if (/https?:\/\//.test(line) || (path.endsWith(".md") && line.startsWith("|"))) return undefined;
  if (path.endsWith(".bt") && line.includes('"')) return undefined;
  // Code of TypeScript is Biome's: what it leaves wide is a text that cannot be broken.
  if (/\.(ts|mjs)$/.test(path) && !isComment(line)) return undefined;
  const columns = columnsOf(line);
  return columns > COLUMNS_MAX
    ? `${columns} columns; a line has ${COLUMNS_MAX} at most`
    : undefined;
}

function columnsOf(line: string): number {
  let columns = 0;
  for (const character of line) {
    columns += character === "\t" ? TAB_COLUMNS - (columns % TAB_COLUMNS) : 1;
  }
  return columns;
}

function todoWithoutIssue(line: string, { path }: SourceFile): string | undefined {
  if (path.startsWith(RULES_THEMSELVES) || !/\b(TODO|FIXME|XXX)\b/.test(line)) return undefined;
  return /\b(TODO|FIXME|XXX)\(#\d+\)/.test(line) ? undefined : "write it as TODO(#issue): …";
}

function skippedTest(line: string, file: SourceFile): string | undefined {
  const isExempt = file.path === MAY_SKIP || file.path.startsWith(RULES_THEMSELVES);
  if (!isTest(file) || !isTypeScript(file) || isExempt) return undefined;
  if (/\b(it|describe|test|suite|t|context)\.(skip|only|todo)\(/.test(line)) {
    return `a test is skipped only with proof, by ${MAY_SKIP}`;
  }
  if (/[{,]\s*(skip|only|todo):/.test(line)) return "a test has neither skip nor only";
  return undefined;
}

function environmentRead(line: string, file: SourceFile): string | undefined {
  if (!isTypeScript(file) || MAY_READ_ENVIRONMENT.test(file.path) || isComment(line)) {
    return undefined;
  }
  return /\bprocess\.env\b/.test(line) ? "settings are read in main.ts or config.ts" : undefined;
}

function isComment(line: string): boolean {
  return /^\s*(\*|\/\/|\/\*)/.test(line);
}

function machinePath(line: string, { path }: SourceFile): string | undefined {
  if (path.startsWith(RULES_THEMSELVES)) return undefined;
  const found = /(?<![\w.~}-])\/(home|root|Users|work)\/[\w.-]+/.exec(line)?.[0];
  return found === undefined ? undefined : `"${found}" is a path of one machine`;
}

function missingLicence(file: SourceFile): Problem[] {
  if (partOf(file.path) !== "bpf" || !/\.(c|h|bt)$/.test(file.path)) return [];
  const isThere = /^(\/\/|\/\*) SPDX-License-Identifier: \(?GPL-2\.0-only OR BSD-2-Clause\)?/;
  if (isThere.test(file.lines[0] ?? "")) return [];
  const text = "the first line names the licence: GPL-2.0-only OR BSD-2-Clause";
  return [{ path: file.path, line: 1, text }];
}

/**
 * What core/ and wire/ export is called by people who do not read the rest of the file, so
 * functions and classes have a doc comment; the one at the top of a file will do for the first. A
 * type or a table often says it all in its members.
 */
function undocumentedExports(file: SourceFile): Problem[] {
  const isPublic = ["core", "wire"].includes(partOf(file.path)) && isTypeScript(file);
  if (!isPublic || isTest(file) || file.path.endsWith("/fixtures.ts")) return [];
  const problems: Problem[] = [];
  let previous = "";
  let hasHeader = file.text.startsWith("/**");
  for (const [index, line] of file.lines.entries()) {
    const name = /^export (?:async |abstract )*(?:function\*?|class) (\w+)/.exec(line)?.[1];
    const above = file.lines[index - 1] ?? "";
    // Of overloads, the first is documented.
    if (name === undefined || name === previous) continue;
    if (!hasHeader && !/\*\/\s*$/.test(above)) {
      problems.push({ path: file.path, line: index + 1, text: `"${name}" has no doc comment` });
    }
    hasHeader = false;
    previous = name;
  }
  return problems;
}

/** A test that no tier lists would never run. */
function testOfNoTier({ path }: SourceFile): Problem[] {
  if (!path.endsWith(".test.ts") || partOf(path) !== "test") return [];
  if (/^test\/(kernel|support|local|mesh|interop|kubernetes)\//.test(path)) return [];
  return [{ path, line: 1, text: "no tier of tools/test.ts runs this" }];
}
