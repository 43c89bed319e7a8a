import type { SnapshotSource } from "../index/types.ts";

/** Changes that come together go out together: a rollout touches many things within moments. */
const GATHER_MS = 10;

/** A stream of changes goes out in this rhythm. It is also the longest that one waits. */
const PUSH_INTERVAL_MS = 100;

/**
 * Calls `push` after changes of `source`.
 *
 * @returns a function that ends it
 */
export function startPushLoop(source: SnapshotSource, push: () => void): () => void {
  let timer: NodeJS.Timeout | undefined;
  let pushedAtMs = Number.NEGATIVE_INFINITY;
  const schedule = () => {
    const waitMs = pushedAtMs + PUSH_INTERVAL_MS - performance.now();
    timer ??= setTimeout(
      () => {
        timer = undefined;
        pushedAtMs = performance.now();
        push();
      },
      Math.max(GATHER_MS, waitMs),
    );
  };
  const unsubscribe = source.onChange(schedule);
  return () => {
    unsubscribe();
    clearTimeout(timer);
  };
}
