import type { FlowReader } from "../kernel/flow-events.ts";
import type { Logger } from "../log.ts";
import type { Timers } from "../timers.ts";
import type { FlowRecords } from "./flow-records.ts";

/** The kernel wakes us before that for a refusal, and where the ring of flows fills. */
const DRAIN_INTERVAL_MS = 100;
/** Losses come in bursts, and each burst is one piece of news. */
const LOSS_LOG_INTERVAL_MS = 10_000;

/**
 * Takes the kernel's events to their records for as long as the reader is open.
 *
 * @returns a function that ends it after a last look; then the reader may be closed
 */
export function drainFlows(
  reader: Pick<FlowReader, "watch" | "takeFlows" | "takeDenies" | "losses">,
  records: Pick<FlowRecords, "takeFlow" | "takeDeny">,
  timers: Timers,
  log: Logger,
): () => void {
  let isEnded = false;
  let cancel = () => {};
  const drain = () => {
    // Refusals first: a flood of flows cannot hold them up.
    for (const event of reader.takeDenies()) records.takeDeny(event);
    for (const event of reader.takeFlows()) records.takeFlow(event);
  };
  const tick = () => {
    drain();
    cancel = timers.after(DRAIN_INTERVAL_MS, tick);
  };
  reader.watch(() => {
    if (!isEnded) drain();
  });
  const cancelLossLog = watchLosses(reader, timers, log);
  tick();
  return () => {
    isEnded = true;
    cancel();
    cancelLossLog();
    drain();
  };
}

/** A line for each time that something has been lost, and not more than one in ten seconds. */
function watchLosses(reader: Pick<FlowReader, "losses">, timers: Timers, log: Logger): () => void {
  let told = sumOf(reader.losses());
  let cancel = () => {};
  const look = () => {
    const losses = reader.losses();
    const sum = sumOf(losses);
    if (sum > told) log.warn({ ...losses }, `${sum - told} flow events were lost`);
    told = sum;
    cancel = timers.after(LOSS_LOG_INTERVAL_MS, look);
  };
  cancel = timers.after(LOSS_LOG_INTERVAL_MS, look);
  return () => cancel();
}

function sumOf(losses: Readonly<Record<string, number>>): number {
  return Object.values(losses).reduce((sum, count) => sum + count, 0);
}
