import type { Timers } from "../timers.ts";

/** A SYN-ACK that was lost is sent again after 1 s and after 3 s: its connection comes here yet. */
const QUIET_MS = 4_000;
const POLL_MS = 200;
/** A process of the pod may dial a listener for ever. Nobody else does so after a hand-over. */
const LIMIT_MS = 60_000;

/** Waits until nobody has come to these listeners, which no slot leads to any more, for a while. */
export async function untilQuiet(
  listeners: readonly { readonly acceptedCount: number }[],
  timers: Timers,
): Promise<void> {
  const count = () => listeners.reduce((sum, { acceptedCount }) => sum + acceptedCount, 0);
  const startedAtMs = timers.nowMs();
  let [last, changedAtMs] = [count(), startedAtMs];
  for (;;) {
    const nowMs = timers.nowMs();
    const accepted = count();
    if (accepted !== last) [last, changedAtMs] = [accepted, nowMs];
    if (nowMs - changedAtMs >= QUIET_MS || nowMs - startedAtMs >= LIMIT_MS) return;
    await new Promise<void>((resolve) => timers.after(POLL_MS, resolve));
  }
}
