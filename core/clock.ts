/** Where the time comes from. Passed in, so that a test can move it by hand. */
export interface Clock {
  /** Milliseconds since the epoch. */
  nowMs(): number;
}
