/** `agent --probe [-o json]`: tells how pods would be captured on this host, and starts nothing. */
import { fileURLToPath } from "node:url";
import { MeshError, reasonOf } from "#core/errors.ts";
import { cgroup2Mount } from "./kernel/cgroup.ts";
import { RUNGS, type Rung } from "./kernel/datapath.ts";
import { type Feature, type LoadedObject, probeAll } from "./kernel/probe.ts";

export interface ProbeAnswer {
  /** The best that works. */
  readonly rung: Rung | null;
  readonly why: string;
  readonly features: readonly Feature[];
  readonly objects: readonly LoadedObject[];
}

/**
 * Runs the command and prints its answer.
 *
 * @param args  those behind the program's name
 * @returns the process's status: 0 where some rung works, 1 where none does, 2 for a wrong usage
 */
export async function runProbe(
  args: readonly string[],
  env: Readonly<Record<string, string | undefined>>,
): Promise<number> {
  const isJson = args.join(" ") === "--probe -o json";
  if (!isJson && args.join(" ") !== "--probe") {
    process.stderr.write(`Cannot run agent ${args.join(" ")}: expected --probe [-o json]\n`);
    return 2;
  }
  try {
    const cgroupRoot = () => env["AQUIFER_CGROUP_ROOT"] ?? cgroup2Mount();
    const objectDir = fileURLToPath(new URL("../build/bpf", import.meta.url));
    const answer = answerOf(await probeAll({ objectDir, cgroupRoot }));
    process.stdout.write(isJson ? `${JSON.stringify(answer, null, 2)}\n` : describeProbe(answer));
    return answer.rung === null ? 1 : 0;
  } catch (error) {
    if (!(error instanceof MeshError)) throw error;
    process.stderr.write(`${reasonOf(error)}\n`);
    return 1;
  }
}

export function answerOf({
  features,
  objects,
}: Pick<ProbeAnswer, "features" | "objects">): ProbeAnswer {
  const reasons = RUNGS.map((rung) => {
    const lacking = features.find((each) => {
      return each.rung === rung && each.isNeeded && each.missing !== undefined;
    });
    return { rung, missing: lacking?.missing };
  });
  const found = reasons.find(({ missing }) => missing === undefined);
  const above = reasons.filter(({ missing }) => missing !== undefined);
  const why = above.map(({ rung, missing }) => `${rung}: ${missing}`).join("; ");
  return {
    rung: found?.rung ?? null,
    why: why || "the best there is, and it loads",
    ...{ features, objects },
  };
}

export function describeProbe({ rung, why, features, objects }: ProbeAnswer): string {
  const lines = [`rung: ${rung ?? "none"} (${why})`, "", ...table(FEATURE_HEAD, featureRows())];
  if (objects.length > 0) lines.push("", ...table(COST_HEAD, objects.flatMap(costRows)));
  const { shared, perPod } = mapMemory(objects);
  lines.push("", `maps of the node: ${kibibytes(shared)}, of each pod: ${kibibytes(perPod)}`);
  return `${lines.join("\n")}\n`;

  function featureRows(): readonly (readonly string[])[] {
    return features.map(({ rung: of, name, purpose, missing }) => {
      return [of, name, missing === undefined ? "yes" : "no", missing ?? purpose];
    });
  }
}

/** Objects share the maps that they name alike; each pod has an instance of one of them. */
function mapMemory(objects: readonly LoadedObject[]) {
  const isPerPod = (name: string) => name === "listeners" || name === "inbound.rodata";
  const byName = new Map(objects.flatMap(({ maps }) => maps.map((map) => [map.name, map])));
  const sum = (wanted: boolean) =>
    [...byName.values()]
      .filter(({ name }) => isPerPod(name) === wanted)
      .reduce((total, { memoryBytes }) => total + memoryBytes, 0);
  return { shared: sum(false), perPod: sum(true) };
}

const FEATURE_HEAD = ["RUNG", "FEATURE", "THERE", "PURPOSE, OR WHY NOT"];
const COST_HEAD = ["OBJECT", "LOAD", "PROGRAM", "VERIFIED", "CODE", "ATTACH"];

function costRows({ object, loadMs, programs, attachMs }: LoadedObject) {
  return programs.map(({ name, verifiedInstructions, jitedBytes }, index) => {
    const attach = attachMs[name];
    return [
      index === 0 ? object : "",
      index === 0 ? milliseconds(loadMs) : "",
      name,
      verifiedInstructions === 0 ? "not told" : `${verifiedInstructions}`,
      `${jitedBytes} B`,
      attach === undefined ? "-" : milliseconds(attach),
    ];
  });
}

function milliseconds(ms: number): string {
  return `${ms.toFixed(1)} ms`;
}

function kibibytes(bytes: number): string {
  return `${Math.ceil(bytes / 1024)} KiB`;
}

/** Columns as wide as their widest cell. */
function table(head: readonly string[], rows: readonly (readonly string[])[]): readonly string[] {
  const all = [head, ...rows];
  const widths = head.map((_, column) => Math.max(...all.map((row) => row[column]?.length ?? 0)));
  const isLast = (column: number) => column === head.length - 1;
  return all.map((row) => {
    const cells = row.map((cell, at) => (isLast(at) ? cell : cell.padEnd(widths[at] ?? 0)));
    return cells.join("  ");
  });
}
