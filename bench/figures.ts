/** What benchmarks measure, and how several rounds of it become one row. */

/** Every figure that a benchmark may print, with its unit. */
export const FIGURES = {
  "throughput-1": "Gbit/s",
  "throughput-4": "Gbit/s",
  "requests-1": "1/s",
  "requests-32": "1/s",
  "latency-p50-1": "µs",
  "latency-p99-1": "µs",
  "latency-p50-32": "µs",
  "latency-p99-32": "µs",
  "new-connections-16": "1/s",
  "cpu-per-gb": "s/GB",
  "cpu-per-request": "µs",
  "cpu-per-connection": "µs",
  "rss-idle": "MiB",
  "rss-peak": "MiB",
} as const;

export type Figure = keyof typeof FIGURES;

/** One subject's figures of one round. */
export type Sample = ReadonlyMap<Figure, number>;

/** One line of the result; the shape of `--json`. */
export interface Row {
  readonly figure: Figure;
  readonly subject: string;
  readonly baseline: string;
  readonly median: number;
  readonly low: number;
  readonly high: number;
  readonly unit: string;
  /** Median of subject ÷ baseline, paired within each round; null where the baseline is zero. */
  readonly ratio: number | null;
  readonly ratioLow: number | null;
  readonly ratioHigh: number | null;
}

/** Samples of all subjects, one for each round: `rounds[i].get(subject)`. */
export type Rounds = readonly ReadonlyMap<string, Sample>[];

/** One row for each figure and subject that was measured, against `baseline`. */
export function summarize(rounds: Rounds, baseline: string): readonly Row[] {
  const subjects = [...new Set(rounds.flatMap((round) => [...round.keys()]))];
  const figures = Object.keys(FIGURES) as Figure[];
  return figures.flatMap((figure) =>
    subjects.flatMap((subject) => rowOf(rounds, figure, subject, baseline) ?? []),
  );
}

function rowOf(rounds: Rounds, figure: Figure, subject: string, baseline: string): Row | undefined {
  const values: number[] = [];
  const ratios: number[] = [];
  for (const round of rounds) {
    const value = round.get(subject)?.get(figure);
    const base = round.get(baseline)?.get(figure);
    if (value === undefined) continue;
    values.push(value);
    if (base !== undefined && base > 0) ratios.push(value / base);
  }
  if (values.length === 0) return undefined;
  return {
    figure,
    subject,
    baseline,
    median: median(values),
    low: Math.min(...values),
    high: Math.max(...values),
    unit: FIGURES[figure],
    ratio: ratios.length > 0 ? median(ratios) : null,
    ratioLow: ratios.length > 0 ? Math.min(...ratios) : null,
    ratioHigh: ratios.length > 0 ? Math.max(...ratios) : null,
  };
}

/** The middle value, or the mean of the two in the middle. */
export function median(values: readonly number[]): number {
  const sorted = values.toSorted((left, right) => left - right);
  const upper = sorted[sorted.length >> 1] ?? Number.NaN;
  const lower = sorted[(sorted.length - 1) >> 1] ?? Number.NaN;
  return (upper + lower) / 2;
}

/** The rows as a table for people. */
export function renderRows(rows: readonly Row[]): string {
  const head = ["figure", "subject", "median", "low … high", "unit", "ratio", "low … high", "to"];
  const body = rows.map((row) => [
    row.figure,
    row.subject,
    written(row.median),
    `${written(row.low)} … ${written(row.high)}`,
    row.unit,
    row.ratio === null ? "–" : row.ratio.toFixed(2),
    row.ratioLow === null || row.ratioHigh === null
      ? "–"
      : `${row.ratioLow.toFixed(2)} … ${row.ratioHigh.toFixed(2)}`,
    row.baseline,
  ]);
  const table = [head, ...body];
  const widths = head.map((_, at) => Math.max(...table.map((cells) => (cells[at] ?? "").length)));
  return table
    .map((cells) => cells.map((cell, at) => cell.padEnd(widths[at] ?? 0)).join("  "))
    .map((line) => line.trimEnd())
    .join("\n");
}

function written(value: number): string {
  if (value >= 100) return value.toFixed(0);
  return value >= 10 ? value.toFixed(1) : value.toFixed(2);
}
