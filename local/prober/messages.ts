/** What the runtime and a node's prober tell each other, a line of JSON each. */
import type { IpAddress } from "#core/ip.ts";
import type { ProbeSpec } from "../object/object.ts";
import type { ProbeOutcome } from "../pod/prober.ts";

export interface ToProber {
  readonly number: number;
  readonly spec: ProbeSpec;
  readonly ip: IpAddress;
}

export interface FromProber {
  readonly number: number;
  readonly outcome: ProbeOutcome;
}
