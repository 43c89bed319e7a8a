/**
 * `npm run bench -- NAME [--rounds N] [--json FILE]`
 *
 * Each benchmark asks one question of several subjects side by side: in every round each subject is
 * measured once, in alternating order, so that a machine that changes its speed changes it for all.
 */
import { writeFile } from "node:fs/promises";
import { parseArgs } from "node:util";
import { parseIntegerIn } from "#core/env.ts";
import { reasonOf } from "#core/errors.ts";
import { type Row, renderRows, type Sample, summarize } from "./figures.ts";
import { mesh } from "./mesh.ts";

/** One question. */
export interface Benchmark {
  readonly title: string;
  readonly baseline: string;
  readonly subjects: readonly string[];
  /** Sets everything up, and takes it away again whatever happens in `work`. */
  run(work: (measure: (subject: string) => Promise<Sample>) => Promise<void>): Promise<void>;
}

const BENCHMARKS: Readonly<Record<string, Benchmark>> = { mesh };

const ROUNDS_DEFAULT = 5;
const ROUNDS_MAX = 1_000;

const USAGE = `usage: npm run bench -- NAME [--rounds N] [--json FILE]

${Object.entries(BENCHMARKS)
  .map(([name, { title }]) => `  ${name}  ${title}`)
  .join("\n")}

  --rounds N   how often each subject is measured (default ${ROUNDS_DEFAULT})
  --json FILE  also write the rows as JSON
`;

async function measure(benchmark: Benchmark, rounds: number): Promise<readonly Row[]> {
  const results: Map<string, Sample>[] = [];
  await benchmark.run(async (sampleOf) => {
    for (let round = 0; round < rounds; round++) {
      const order = round % 2 === 0 ? benchmark.subjects : benchmark.subjects.toReversed();
      const samples = new Map<string, Sample>();
      for (const subject of order) {
        process.stderr.write(`round ${round + 1} of ${rounds}: ${subject}\n`);
        samples.set(subject, await sampleOf(subject));
      }
      results.push(samples);
    }
  });
  return summarize(results, benchmark.baseline);
}

async function main(args: readonly string[]): Promise<number> {
  const { values, positionals } = parseArgs({
    args: [...args],
    allowPositionals: true,
    options: { rounds: { type: "string" }, json: { type: "string" }, help: { type: "boolean" } },
  });
  const benchmark = BENCHMARKS[positionals[0] ?? ""];
  if (values.help || benchmark === undefined || positionals.length !== 1) {
    process.stdout.write(USAGE);
    return values.help ? 0 : 2;
  }
  const rounds = parseIntegerIn(values.rounds ?? String(ROUNDS_DEFAULT), 1, ROUNDS_MAX);
  const rows = await measure(benchmark, rounds);
  process.stdout.write(`${benchmark.title}\n\n${renderRows(rows)}\n`);
  if (values.json !== undefined) await writeFile(values.json, `${JSON.stringify(rows, null, 2)}\n`);
  return 0;
}

try {
  process.exitCode = await main(process.argv.slice(2));
} catch (error) {
  process.stderr.write(`Cannot run benchmark: ${reasonOf(error)}\n`);
  process.exitCode = 1;
}
