import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { docRules } from "./doc-rules.ts";
import { importRule } from "./import-rules.ts";
import { type Project, type Rule, sourceFile } from "./project.ts";
import { textRules } from "./text-rules.ts";

const PACKAGES = JSON.stringify({
  dependencies: { pino: "1", "@grpc/grpc-js": "1" },
  devDependencies: { "fast-check": "1" },
});

function project(files: Readonly<Record<string, string>>): Project {
  const all = { "package.json": PACKAGES, ...files };
  return { files: Object.entries(all).map(([path, text]) => sourceFile(path, text)) };
}

function problemsOf(rules: readonly Rule[], files: Readonly<Record<string, string>>): string[] {
  const of = project(files);
  return rules
    .flatMap((rule) => rule(of))
    .map(({ path, line, text }) => `${path}:${line}: ${text}`);
}

describe("text rules", () => {
  it("count columns as a terminal shows them", () => {
    const files = {
      "a.c": `\t${"x".repeat(92)}\n\t${"x".repeat(93)}`,
      "b.ts": `// ${"é".repeat(97)}\n// ${"é".repeat(98)}\nconst a = "${"x".repeat(100)}"`,
    };
    assert.deepEqual(problemsOf(textRules, files), [
      "a.c:2: 101 columns; a line has 100 at most",
      "b.ts:2: 101 columns; a line has 100 at most",
    ]);
  });

  it("leave what cannot be broken alone: addresses, tables and code in Markdown", () => {
    const wide = "x".repeat(120);
    const text = `| ${wide} |\n\`\`\`\n${wide}\n\`\`\`\nhttps://example.org/${wide}`;
    assert.deepEqual(problemsOf(textRules, { "a.md": text }), []);
  });

  it("ask for an issue number behind a plan", () => {
    const files = { "agent/a.ts": "// TODO later\n// TODO(#12): later" };
    assert.deepEqual(problemsOf(textRules, files), ["agent/a.ts:1: write it as TODO(#issue): …"]);
  });

  it("refuse tests that are skipped or alone, and tests that no tier runs", () => {
    const files = {
      "agent/a.test.ts": 'it.only("x", () => {});\nit("y", { skip: true }, () => {});',
      "test/other/b.test.ts": "",
      "test/support/kernel.ts": "t.skip(reason);",
    };
    assert.deepEqual(problemsOf(textRules, files), [
      "agent/a.test.ts:1: a test is skipped only with proof, by test/support/kernel.ts",
      "agent/a.test.ts:2: a test has neither skip nor only",
      "test/other/b.test.ts:1: no tier of tools/test.ts runs this",
    ]);
  });

  it("let only main.ts, config.ts and tests read the environment", () => {
    const read = "const { HOME } = process.env;";
    const files = { "agent/config.ts": read, "agent/a.test.ts": read, "agent/a.ts": read };
    assert.deepEqual(problemsOf(textRules, files), [
      "agent/a.ts:1: settings are read in main.ts or config.ts",
    ]);
  });

  it("refuse a path of one machine, and allow one below a variable", () => {
    const files = { "agent/a.ts": `"/home/me/x"\n"\${root}/home/x"\n"/run/aquifer"` };
    assert.deepEqual(problemsOf(textRules, files), [
      'agent/a.ts:1: "/home/me" is a path of one machine',
    ]);
  });

  it("want the licence in the first line of kernel code", () => {
    const right = "// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)\n";
    const problems = problemsOf(textRules, { "bpf/a.bpf.c": right, "bpf/b.h": "int x;\n" });
    assert.equal(problems.length, 1);
    assert.match(problems[0] ?? "", /^bpf\/b\.h:1: /);
  });

  it("want a doc comment on the functions and classes of core/ and wire/", () => {
    const files = {
      "core/a.ts": "/** All. */\n\nexport class Header {}\nexport class Unsaid {}",
      "core/b.ts": "\n/** Said. */\nexport function said() {}\nexport const word = 1;",
      "agent/a.ts": "export function inside() {}",
    };
    assert.deepEqual(problemsOf(textRules, files), ['core/a.ts:4: "Unsaid" has no doc comment']);
  });
});

describe("importRule()", () => {
  const importing = (path: string, specifier: string) =>
    problemsOf([importRule], { [path]: `import {\n  a,\n} from "${specifier}";\n` });

  it("keeps core/ pure, except for its tests", () => {
    assert.deepEqual(importing("core/a.ts", "node:fs"), ["core/a.ts:3: core/ is pure: no node:fs"]);
    assert.deepEqual(importing("core/a.ts", "pino"), ['core/a.ts:3: core/ may not import "pino"']);
    assert.deepEqual(importing("core/a.test.ts", "node:fs"), []);
    assert.deepEqual(importing("core/a.test.ts", "fast-check"), []);
  });

  it("follows the table, by whatever way the import is written", () => {
    assert.deepEqual(importing("wire/a.ts", "#core/ip.ts"), []);
    assert.deepEqual(importing("wire/a.ts", "../agent/main.ts"), [
      "wire/a.ts:3: wire/ may not import agent/",
    ]);
    assert.deepEqual(importing("agent/a/b.ts", "../../core/ip.ts"), [
      "agent/a/b.ts:3: write it as #core/…",
    ]);
  });

  it("lets nobody import tests, but other tests", () => {
    assert.deepEqual(importing("agent/a.ts", "../test/support/netns.ts"), [
      "agent/a.ts:3: test/ is imported by nobody",
    ]);
    assert.deepEqual(importing("agent/a.test.ts", "../test/support/netns.ts"), []);
  });

  it("knows only packages that package.json lists, development ones in tests alone", () => {
    assert.deepEqual(importing("agent/a.ts", "@grpc/grpc-js/build/x"), []);
    assert.deepEqual(importing("agent/a.ts", "left-pad"), [
      'agent/a.ts:3: package.json does not list "left-pad" for this',
    ]);
    assert.equal(importing("agent/a.ts", "fast-check").length, 1);
  });

  it("finds imports that run later, and no words in a text", () => {
    const text = `const a = await ${"import"}("left-pad");\nexport const b = "from" + "left";\n`;
    assert.equal(problemsOf([importRule], { "agent/a.ts": text }).length, 1);
  });
});

describe("doc rules", () => {
  it("find links that lead nowhere, in files and in headings", () => {
    const files = {
      "README.md": "[a](docs/a.md#one-two) [b](docs/b.md) [c](docs/a.md#three) [d](docs)",
      "docs/a.md": "## One `two`\n",
    };
    assert.deepEqual(problemsOf(docRules, files), [
      'README.md:1: "docs/b.md" leads nowhere',
      'README.md:1: "docs/a.md" has no heading "three"',
    ]);
  });

  it("find a comment that cites a document which is not there", () => {
    const files = { "docs/a.md": "", "agent/a.ts": "// docs/a.md\n// docs/decisions/9-b.md" };
    assert.deepEqual(problemsOf(docRules, files), [
      "agent/a.ts:2: there is no docs/decisions/9-b.md",
    ]);
  });

  it("compare the settings in both directions, also those whose names are put together", () => {
    const files = {
      "agent/config.ts": `read.optional("NETWORK", 1); required(\`\${which}_ROOT_CA\`, 1);`,
      "docs/settings.md": "| `XDS_ROOT_CA` | |\n| `NETWROK` | |\n",
    };
    assert.deepEqual(problemsOf(docRules, files), [
      'docs/settings.md:2: "NETWROK" is not in the code',
      'agent/config.ts:1: docs/settings.md lacks "NETWORK"',
    ]);
  });

  it("compare the error codes", () => {
    const files = {
      "core/errors.ts": '  TIMED_OUT: { side: "upstream", retry: true },\n',
      "docs/errors.md": "| `TIMED_OUT` | |\n| `LOST` | |\n",
    };
    assert.deepEqual(problemsOf(docRules, files), ['docs/errors.md:2: "LOST" is not in the code']);
  });
});
