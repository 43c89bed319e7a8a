import type { FlowReader } from "../kernel/flow-events.ts";
import type { Logger } from "../log.ts";
import type { FlowNumbers } from "../metrics.ts";
import { drainFlows } from "./flow-drain.ts";
import { FlowRecords, type FlowRecordsOptions } from "./flow-records.ts";

export interface FlowsOptions extends FlowRecordsOptions {
  /** Of the datapath: undefined where the kernel tells nothing. */
  readonly open: () => FlowReader | undefined;
  readonly log: Logger;
}

/** The agent's ear at the kernel. Open from `start()` to `stop()`, by one process at a time. */
export class Flows {
  readonly #options: FlowsOptions;
  readonly #records: FlowRecords;
  #reader: FlowReader | undefined;
  #end = () => {};
  /** As it was last read. */
  #lost: Readonly<Record<string, number>> = {};

  constructor(options: FlowsOptions) {
    this.#options = options;
    this.#records = new FlowRecords(options);
  }

  start(): void {
    const { open, timers, log } = this.#options;
    this.#reader = open();
    if (this.#reader) this.#end = drainFlows(this.#reader, this.#records, timers, log);
  }

  /** What comes from now on waits in the rings for the next reader. Does nothing twice. */
  stop(): void {
    this.#end();
    this.#end = () => {};
    this.#lost = this.#reader?.losses() ?? this.#lost;
    this.#reader?.close();
    this.#reader = undefined;
  }

  /** For metrics. */
  numbers(): FlowNumbers {
    this.#lost = this.#reader?.losses() ?? this.#lost;
    const { events, retransmits, unattributed, abandoned } = this.#records.counts;
    return { events, retransmits, lost: { ...this.#lost, unattributed, abandoned } };
  }
}
