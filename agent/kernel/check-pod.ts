import { MeshError } from "#core/errors.ts";
import { isIpv4, isLoopback } from "#core/ip.ts";
import { openNetns } from "#native/kernel/index.ts";
import type { CapturedPod } from "./datapath.ts";

/**
 * Refuses a pod that cannot be captured as it is described.
 *
 * @param holderOf  the pod that has been captured in the network namespace with that cookie
 * @returns the cookie of the pod's network namespace
 * @throws MeshError `REQUEST_REFUSED`
 */
export function checkPod(
  pod: CapturedPod,
  holderOf: (cookie: bigint) => string | undefined,
): bigint {
  const refuse = (reason: string) =>
    new MeshError("REQUEST_REFUSED", `Cannot enrol pod "${pod.uid}": ${reason}`);
  const families = pod.addresses.map((ip) => isIpv4(ip));
  if (families.length === 0 || new Set(families).size !== families.length) {
    throw refuse("expected one address, or one of each family");
  }
  const unusable = pod.addresses.find((ip) => isLoopback(ip) || ip === "0.0.0.0" || ip === "::");
  if (unusable !== undefined) throw refuse(`${unusable} is not an address of a pod`);
  if (!Number.isInteger(pod.id) || pod.id < 1 || pod.id > 0xffff_ffff) {
    throw refuse(`id ${pod.id} is not in 1 to 2^32-1`);
  }
  const cookie = pod.netns.cookie();
  if (cookie === ownNetnsCookie()) throw refuse("it is in the agent's network namespace");
  const holder = holderOf(cookie);
  if (holder !== undefined && holder !== pod.uid) {
    throw refuse(`its network namespace is that of pod "${holder}"`);
  }
  return cookie;
}

function ownNetnsCookie(): bigint {
  const own = openNetns(process.pid);
  try {
    return own.cookie();
  } finally {
    own.close();
  }
}
