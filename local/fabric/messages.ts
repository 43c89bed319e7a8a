/** What the runtime and its process in the fabric say to each other, one JSON value a line. */
import type { Zone } from "../dns/zone.ts";

export type ToFabric =
  | { readonly kind: "zone"; readonly zone: Zone }
  /** Wants a word of control about all that was written before; numbers only grow. */
  | { readonly kind: "ask"; readonly number: number };

export type FromFabric =
  | { readonly kind: "listening" }
  | {
      readonly kind: "control";
      readonly ready: boolean;
      readonly problems: readonly ControlProblem[];
      /** The nodes that have all that control has to tell. */
      readonly current: readonly string[];
      /** The last question that this answers; 0 for none. */
      readonly answers: number;
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
