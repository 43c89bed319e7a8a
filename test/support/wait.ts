/** Waits for something to come true, instead of for a time that ought to be enough. */

const LIMIT_MS = 10_000;
const STEP_MS = 5;

/**
 * @param what  is waited for, for the message
 * @param find  asked until it gives something other than undefined, false or 0
 */
export async function waitFor<Value>(
  what: string,
  find: () => Value | undefined | Promise<Value | undefined>,
  limitMs = LIMIT_MS,
): Promise<Value> {
  const endMs = performance.now() + limitMs;
  for (;;) {
    const value = await find();
    if (value) return value;
    if (performance.now() > endMs) throw new Error(`${what}: not within ${limitMs} ms`);
    await new Promise((resolve) => setTimeout(resolve, STEP_MS));
  }
}
