/** What the runtime and its process in the fabric say to each other, one JSON value a line. */
import type { Zone } from "../dns/zone.ts";

export type ToFabric = { readonly kind: "zone"; readonly zone: Zone };

export type FromFabric =
  | { readonly kind: "listening" }
  | {
      readonly kind: "control";
      readonly ready: boolean;
      readonly problems: readonly ControlProblem[];
    };

/** One entry of the control server's `/problems`. */
export interface ControlProblem {
  readonly file: string;
  readonly line: number;
  readonly object: string;
  readonly field: string;
  readonly reason: string;
  readonly lastGood: boolean;
}
