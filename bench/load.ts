/** Builds the load generator, runs it, and turns what it prints into figures. */
import { execFile } from "node:child_process";
import { mkdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import type { Figure } from "./figures.ts";
import { cpuSeconds } from "./processes.ts";

const run = promisify(execFile);

const ROOT = join(import.meta.dirname, "..");
const SOURCE = join(ROOT, "bench/load/load.c");
const PROGRAM = join(ROOT, "build/bench/load");

/** Compiles it where it is missing or older than its source. @returns its path */
export async function buildLoad(): Promise<string> {
  const built = await stat(PROGRAM).catch(() => undefined);
  if (built === undefined || built.mtimeMs < (await stat(SOURCE)).mtimeMs) {
    await mkdir(join(ROOT, "build/bench"), { recursive: true });
    await run("cc", ["-O2", "-Wall", "-Wextra", "-o", PROGRAM, SOURCE]);
  }
  return PROGRAM;
}

/** The port that `load serve` echoes on in every benchmark; its source is on the next. */
export const LOAD_PORT = 7000;

/** Runs `load ARGUMENTS` where the client of a subject lives, and returns what it printed. */
export type RunClient = (args: readonly string[]) => Promise<string>;

interface Outcome {
  readonly seconds: number;
  readonly bytes: number;
  readonly count: number;
  readonly p50Us?: number;
  readonly p99Us?: number;
}

/** How long each figure is measured. */
const SECONDS = 3;

/**
 * Every figure that the load can tell, of one subject.
 *
 * @param address  of the server's pod
 * @param proxies  whose processor time counts as the subject's; none for no mesh
 */
export async function measureLoad(
  client: RunClient,
  address: string,
  proxies: readonly number[],
): Promise<Map<Figure, number>> {
  const sample = new Map<Figure, number>();
  const measured = async (mode: string, port: number, parallel: number) => {
    const before = cpuSeconds(proxies);
    const args = [mode, address, String(port), String(parallel), String(SECONDS)];
    const outcome = JSON.parse(await client(args)) as Outcome;
    // The load runs a quarter longer than it measures: the processor time is of all of it.
    return { outcome, cpu: ((cpuSeconds(proxies) - before) / 1.25) as number };
  };

  const one = await measured("throughput", LOAD_PORT + 1, 1);
  sample.set("throughput-1", gbitPerSecond(one.outcome));
  const four = await measured("throughput", LOAD_PORT + 1, 4);
  sample.set("throughput-4", gbitPerSecond(four.outcome));
  sample.set("cpu-per-gb", four.cpu / (four.outcome.bytes / 1e9));

  const single = await measured("requests", LOAD_PORT, 1);
  setRequests(sample, "1", single.outcome);
  const many = await measured("requests", LOAD_PORT, 32);
  setRequests(sample, "32", many.outcome);
  sample.set("cpu-per-request", (many.cpu / many.outcome.count) * 1e6);

  const fresh = await measured("connections", LOAD_PORT, 16);
  sample.set("new-connections-16", fresh.outcome.count / fresh.outcome.seconds);
  sample.set("cpu-per-connection", (fresh.cpu / fresh.outcome.count) * 1e6);
  return sample;
}

function setRequests(sample: Map<Figure, number>, connections: "1" | "32", outcome: Outcome): void {
  sample.set(`requests-${connections}`, outcome.count / outcome.seconds);
  sample.set(`latency-p50-${connections}`, outcome.p50Us ?? Number.NaN);
  sample.set(`latency-p99-${connections}`, outcome.p99Us ?? Number.NaN);
}

function gbitPerSecond({ bytes, seconds }: Outcome): number {
  return (bytes * 8) / seconds / 1e9;
}
