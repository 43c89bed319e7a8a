/**
 * Runs tests, tier after tier, and says at the end what ran.
 *
 *   node tools/test.ts TIER|all [PART OF A PATH]... [--test-name-pattern=REGEXP]
 *
 * The last line is `N passed, N failed`, over all tiers; the summary is in build/test-summary too.
 *
 * Why not `node --test` alone: without a list it runs helpers as tests, an empty list passes, and
 * it knows of no tiers.
 */
import { spawnSync } from "node:child_process";
import { globSync, mkdirSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import process from "node:process";
import { run } from "node:test";
import { spec } from "node:test/reporters";
import { parseArgs } from "node:util";

const root = path.resolve(import.meta.dirname, "..");
const KERNEL_OLDEST = "5.15";

interface Tier {
  readonly name: string;
  /** Below the root of the project. */
  readonly folders: readonly string[];
  readonly needsKernel: boolean;
  /** Files at a time. One where tests measure time or share the kernel's counters. */
  readonly concurrency: number;
  /** For one test. */
  readonly testLimitMs: number;
  /** For the whole tier: what still runs then is ended and has failed. */
  readonly tierLimitMs: number;
}

const PARTS = "core wire native agent waypoint control local cli examples bench tools".split(" ");

/**
 * In the order in which they run: what breaks everything else comes first. Their limits together
 * stay below the 20 minutes that CI has.
 */
const TIERS: readonly Tier[] = [
  {
    name: "unit",
    folders: PARTS,
    needsKernel: false,
    concurrency: os.availableParallelism(),
    testLimitMs: 30_000,
    tierLimitMs: 150_000,
  },
  ...[
    { name: "kernel", tierLimitMs: 180_000 },
    { name: "local", tierLimitMs: 240_000 },
    { name: "mesh", tierLimitMs: 420_000 },
    { name: "interop", tierLimitMs: 120_000 },
  ].map(({ name, tierLimitMs }) => ({
    name,
    folders: name === "kernel" ? ["test/kernel", "test/support"] : [`test/${name}`],
    needsKernel: true,
    concurrency: 1,
    testLimitMs: 180_000,
    tierLimitMs,
  })),
];

type Outcome =
  | {
      readonly kind: "ran";
      readonly passed: number;
      readonly failed: number;
      readonly note: string;
    }
  /** Nothing is wrong, yet nothing ran: there is no such test, or this machine cannot run it. */
  | { readonly kind: "absent"; readonly why: string }
  /** It could have run here. */
  | { readonly kind: "refused"; readonly why: string };

function filesOf(tier: Tier, wanted: readonly string[]): string[] {
  return tier.folders
    .flatMap((folder) => globSync(`${folder}/**/*.test.ts`, { cwd: root }))
    .filter((file) => !file.includes("node_modules/"))
    .filter((file) => wanted.length === 0 || wanted.some((part) => file.includes(part)))
    .sort();
}

function isOlder(release: string, than: string): boolean {
  const [a, b] = [release, than].map((text) =>
    text.split(".").map((part) => Number.parseInt(part, 10)),
  );
  const difference = (a?.[0] ?? 0) - (b?.[0] ?? 0) || (a?.[1] ?? 0) - (b?.[1] ?? 0);
  return difference < 0;
}

async function runTier(tier: Tier, files: readonly string[], names: string[]): Promise<Outcome> {
  if (files.length === 0) return { kind: "absent", why: "there is no such test" };
  if (tier.needsKernel && isOlder(os.release(), KERNEL_OLDEST)) {
    const why = `needs Linux ${KERNEL_OLDEST} or newer, this is ${os.release()}`;
    return { kind: "absent", why };
  }
  if (tier.needsKernel && process.getuid?.() !== 0) {
    const why = `needs root (namespaces, eBPF), and this is user ${process.getuid?.()}`;
    return { kind: "refused", why };
  }
  return runFiles(tier, files, names);
}

/** Somebody wants us to end: so do the files that run, and there is a summary still. */
const stop = new AbortController();
for (const signal of ["SIGINT", "SIGTERM"] as const) {
  process.once(signal, () => stop.abort(new Error(`stopped by ${signal}`)));
}

async function runFiles(tier: Tier, files: readonly string[], names: string[]): Promise<Outcome> {
  const tierLimit = AbortSignal.timeout(tier.tierLimitMs);
  const limit = AbortSignal.any([tierLimit, stop.signal]);
  const unfinished = new Set(files);
  const counts = { passed: 0, failed: 0, skipped: 0 };
  const events = run({
    cwd: root,
    files: files.map((file) => path.join(root, file)),
    concurrency: tier.concurrency,
    timeout: tier.testLimitMs,
    signal: limit,
    ...(names.length > 0 && { testNamePatterns: names }),
  });
  events.on("test:summary", ({ file, counts: of, success }) => {
    if (file !== undefined) {
      unfinished.delete(path.relative(root, file));
      return;
    }
    const failed = of.tests - of.passed - of.skipped - of.todo;
    counts.passed = of.passed;
    counts.failed = success ? 0 : Math.max(1, failed);
    counts.skipped = of.skipped;
  });
  for await (const text of events.compose(new spec())) process.stdout.write(text);
  const skipped = counts.skipped > 0 ? `, ${counts.skipped} skipped` : "";
  if (!limit.aborted) return { kind: "ran", ...counts, note: `${files.length} files${skipped}` };
  const why = tierLimit.aborted ? `ended after ${tier.tierLimitMs} ms` : "stopped";
  const note = `${why}, unfinished: ${[...unfinished].join(" ")}`;
  return { kind: "ran", ...counts, failed: Math.max(1, counts.failed), note };
}

/** @returns how many of the checks failed, as one: they are not tests, but they must be fine */
function runCheck(): number {
  const { status } = spawnSync("sh", ["tools/run", "check"], { cwd: root, stdio: "inherit" });
  return status === 0 ? 0 : 1;
}

function describeOutcome(outcome: Outcome): string {
  switch (outcome.kind) {
    case "ran":
      return `${outcome.passed} passed, ${outcome.failed} failed (${outcome.note})`;
    case "absent":
      return `not run: ${outcome.why}`;
    case "refused":
      return `CANNOT RUN: ${outcome.why}`;
  }
}

async function main(): Promise<void> {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: { "test-name-pattern": { type: "string", multiple: true, default: [] } },
  });
  const [wantedTier = "all", ...parts] = positionals;
  const tiers = TIERS.filter(({ name }) => wantedTier === "all" || wantedTier === name);
  const summary: string[] = [];
  let passed = 0;
  let failed = 0;
  if (wantedTier === "all" && parts.length === 0) {
    failed += runCheck();
    summary.push(`check    ${failed === 0 ? "fine" : "FAILED"}`);
  }
  for (const tier of tiers) {
    if (stop.signal.aborted) break;
    console.log(`\n== ${tier.name}`);
    const startMs = performance.now();
    const outcome = await runTier(tier, filesOf(tier, parts), values["test-name-pattern"]);
    const seconds = ((performance.now() - startMs) / 1_000).toFixed(1);
    if (outcome.kind === "ran") {
      passed += outcome.passed;
      failed += outcome.failed;
    } else if (outcome.kind === "refused") failed += 1;
    summary.push(`${tier.name.padEnd(8)} ${describeOutcome(outcome)}, ${seconds} s`);
  }
  if (passed + failed === 0) failed = 1;
  const text = `${[...summary, `${passed} passed, ${failed} failed`].join("\n")}\n`;
  mkdirSync(path.join(root, "build"), { recursive: true });
  writeFileSync(path.join(root, "build/test-summary"), text);
  process.stdout.write(`\n== summary\n${text}`);
  process.exitCode = failed === 0 ? 0 : 1;
}

await main();
