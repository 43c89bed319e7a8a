/**
 * Checks what Biome and tsc cannot: sizes, borders between folders, documentation that names code,
 * generated code that is up to date. Prints every problem, and fails where there is one.
 *
 *   node tools/tidy.ts
 */
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, readFileSync } from "node:fs";
import path from "node:path";
import process from "node:process";
import { docRules } from "./tidy/doc-rules.ts";
import { importRule } from "./tidy/import-rules.ts";
import { type Problem, type Project, type Rule, readProject } from "./tidy/project.ts";
import { textRules } from "./tidy/text-rules.ts";

const root = path.resolve(import.meta.dirname, "..");
const RULES: readonly Rule[] = [...textRules, importRule, ...docRules, staleCode, cFormat];

/** `npm run generate` notes what it generated from. */
function staleCode({ files }: Project): Problem[] {
  const schemas = files.filter(({ path: at }) => /^wire\/proto\/[\w-]+\.proto$/.test(at));
  const marker = path.join(root, "wire/gen/proto.sha256");
  const noted = existsSync(marker) ? readFileSync(marker, "utf8") : "";
  return schemas.flatMap((file) => {
    const digest = createHash("sha256").update(file.text).digest("hex");
    if (noted.includes(`${digest}  ./${path.basename(file.path)}\n`)) return [];
    return [{ path: file.path, line: 1, text: "wire/gen is older than this: npm run generate" }];
  });
}

/** What the C and C++ sources are formatted with; others format some lines differently. */
const CLANG_FORMAT_MAJOR = "14";

function cFormat({ files }: Project): Problem[] {
  const sources = files
    .map((file) => file.path)
    .filter((at) => /^(bpf|native)\/.*\.(c|h|cc)$/.test(at));
  const version = spawnSync("clang-format", ["--version"], { encoding: "utf8" }).stdout ?? "";
  const isOurs = version.includes(`version ${CLANG_FORMAT_MAJOR}.`);
  if (!isOurs || sources.length === 0) return [];
  const arguments_ = ["--dry-run", "--style=file", ...sources];
  const { stderr } = spawnSync("clang-format", arguments_, { cwd: root, encoding: "utf8" });
  return [...stderr.matchAll(/^(.+?):(\d+):\d+: warning: code should be/gm)].map(
    ([, at = "", line]) => ({ path: at, line: Number(line), text: "clang-format -i formats this" }),
  );
}

const project = readProject(root);
const problems = RULES.flatMap((rule) => rule(project));
for (const { path: at, line, text } of problems) console.error(`${at}:${line}: ${text}`);
if (problems.length > 0) {
  console.error(`tidy: ${problems.length} problems`);
  process.exitCode = 1;
}
