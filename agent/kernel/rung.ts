/** Chooses the means by which this agent captures pods. */
import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { MeshError } from "#core/errors.ts";
import { type Datapath, type DatapathOptions, openDatapath, RUNGS, type Rung } from "./datapath.ts";
import { type NftDatapathOptions, openNftDatapath } from "./nft/datapath.ts";
import { PodRecords } from "./nft/records.ts";
import { missingForEbpf, missingForNft } from "./probe.ts";

export type WantedRung = Rung | "auto";

export interface RungOptions {
  readonly wanted: WantedRung;
  readonly ebpf: Omit<DatapathOptions, "cgroupRoot">;
  /** @throws MeshError `KERNEL_UNSUPPORTED` where there is none */
  readonly cgroupRoot: () => string;
  readonly nftables: NftDatapathOptions;
}

export interface ChosenRung {
  readonly rung: Rung;
  readonly why: string;
}

export interface OpenedRung extends ChosenRung {
  readonly datapath: Datapath;
}

/** @throws MeshError of whatever the rung is opened with; see `chooseRung()` */
export function openRung(options: RungOptions): OpenedRung {
  const { wanted, ebpf, nftables, cgroupRoot } = options;
  const probes: Probes = {
    ebpf: () => missingForEbpf({ objectDir: ebpf.objectDir, cgroupRoot }),
    nftables: () => missingForNft(),
  };
  const chosen = chooseRung(wanted, podsInForce(options), probes);
  const datapath =
    chosen.rung === "ebpf"
      ? openDatapath({ ...ebpf, cgroupRoot: cgroupRoot() })
      : openNftDatapath(nftables);
  return { ...chosen, datapath };
}

/** @returns what is missing, or undefined where the rung works */
type Probes = Readonly<Record<Rung, () => string | undefined>>;

/**
 * A rung that has pods keeps them: two captures of one pod would refuse everything. Such a rung has
 * loaded before, and is not probed again: until it is back, its pods are refused.
 *
 * @throws MeshError `SETTINGS_INVALID` where another rung is wanted than the one that has pods;
 *   `KERNEL_UNSUPPORTED` where none works
 */
export function chooseRung(
  wanted: WantedRung,
  inForce: Readonly<Record<Rung, number>>,
  probes: Probes,
): ChosenRung {
  const holders = RUNGS.filter((rung) => inForce[rung] > 0);
  const foreign = holders.find((rung) =>
    wanted === "auto" ? holders.length > 1 : rung !== wanted,
  );
  if (foreign !== undefined) {
    const reason = `${inForce[foreign]} pods are captured with ${foreign}: un-enrol them first`;
    throw new MeshError("SETTINGS_INVALID", `Cannot use AQUIFER_DATAPATH=${wanted}: ${reason}`);
  }
  const [holder] = holders;
  if (holder !== undefined) return { rung: holder, why: "its pods are to be kept" };
  const missing: string[] = [];
  for (const rung of wanted === "auto" ? RUNGS : [wanted]) {
    const reason = probes[rung]();
    if (reason !== undefined) missing.push(`${rung}: ${reason}`);
    else if (wanted !== "auto") return { rung, why: `AQUIFER_DATAPATH=${wanted}` };
    else return { rung, why: missing.join("; ") || "the best there is, and it loads" };
  }
  throw new MeshError("KERNEL_UNSUPPORTED", `Cannot capture pods: ${missing.join("; ")}`);
}

function podsInForce({ ebpf, nftables }: RungOptions): Readonly<Record<Rung, number>> {
  const pins = join(ebpf.pinDir, "pods");
  const { recordDir, bootId } = nftables;
  return {
    ebpf: existsSync(pins) ? readdirSync(pins).length : 0,
    nftables: existsSync(recordDir) ? new PodRecords(recordDir, bootId).uids().length : 0,
  };
}
