import { MeshError, reasonOf } from "#core/errors.ts";
import type { Logger } from "../log.ts";
import type { Timers } from "../timers.ts";

/** A prober that was started again probes unmarked until then; three failures are ten seconds. */
const PERIOD_MS = 2_000;

/**
 * Keeps the marking of probes on the prober's cgroup, which its service manager makes anew with
 * each start. Says so when that changes.
 *
 * @returns ends it
 */
export function watchProbes(
  datapath: { refreshProbes(): boolean },
  timers: Timers,
  log: Logger,
): () => void {
  let last = "";
  let cancel = () => {};
  const look = () => {
    const state = stateOf(datapath);
    if (state !== last) {
      if (state === "marked") log.info("probes from the node are marked");
      else log.warn({ reason: state }, "probes from the node are not marked");
      last = state;
    }
    cancel = timers.after(PERIOD_MS, look);
  };
  look();
  return () => cancel();
}

function stateOf(datapath: { refreshProbes(): boolean }): string {
  try {
    return datapath.refreshProbes() ? "marked" : "there is no such cgroup";
  } catch (error) {
    if (!(error instanceof MeshError)) throw error;
    return reasonOf(error);
  }
}
