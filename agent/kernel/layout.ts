/** `enum mesh_outcome`: a value's index here is its number there. */
export const COUNTERS = [
  "notEnrolled",
  "agentsOwn",
  "self",
  "notTcp",
  "captured",
  "blocked",
  "noMemory",
  "noAddress",
  "handedOver",
  "handoffFull",
  "takenOver",
  "takeoverFailed",
  "peerAnswered",
  "inNotTcp",
  "inSelf",
  "inOutbound",
  "inTunnel",
  "inPlaintext",
  "inNoListener",
  "inNotAssigned",
] as const;
export type Counter = (typeof COUNTERS)[number];
