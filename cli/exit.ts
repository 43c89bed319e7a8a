/** It was tried, and failed. */
export const EXIT_FAILED = 1;
/** It was not tried, since nobody could tell what was meant. */
export const EXIT_MISUSED = 2;
