/** Strict egress: what a pod sends past the capture is blocked or reported. */
import { existsSync, statfsSync, statSync, unlinkSync } from "node:fs";
import { join } from "node:path";
import { MeshError } from "#core/errors.ts";
import { type IpAddress, ipToBytes, isIpv4 } from "#core/ip.ts";
import { BpfMap, BpfObject } from "#native/kernel/index.ts";
import { CGROUP2_SUPER_MAGIC } from "./cgroup.ts";
import { encodeUint32 } from "./layout.ts";
import type { Pins, PodPins } from "./pins.ts";
import {
  encodeNameservers,
  STRICT_COUNTERS,
  STRICT_MODES,
  STRICT_NAMESERVERS,
  type StrictMode,
} from "./probe-layout.ts";
import { readCounters } from "./probe-source.ts";
import { install } from "./programs.ts";

export interface StrictEgress {
  readonly mode: StrictMode;
  /** The pod's, which all of its processes are in: a directory in cgroup2. */
  readonly cgroup: string;
  /** Those that the pod may ask over UDP. */
  readonly nameservers: readonly IpAddress[];
}

const PROGRAM = "strict_egress";
const COUNTERS = "strict_counters";

/**
 * On the pod's own cgroup and not on the agent's: the packets of all others then cost nothing, and
 * the hook cannot ask for the network namespace before Linux 6.15.
 *
 * @param strict  undefined takes it off
 * @throws MeshError `REQUEST_REFUSED` where the cgroup cannot be one
 */
export function setStrictEgress(
  pins: Pins,
  pod: PodPins,
  objectDir: string,
  addresses: readonly IpAddress[],
  strict: StrictEgress | undefined,
): void {
  if (strict === undefined) {
    if (existsSync(pod.strict)) unlinkSync(pod.strict);
    return;
  }
  const cgroupId = checkCgroup(strict);
  const object = new BpfObject(join(objectDir, "strict.bpf.o"));
  try {
    object.setPinPath(COUNTERS, pins.map(COUNTERS));
    object.setConstant("mode", encodeUint32(STRICT_MODES[strict.mode]));
    for (const ip of addresses) {
      object.setConstant(isIpv4(ip) ? "own_ip4" : "own_ip6", ipToBytes(ip));
    }
    object.setConstant("nameservers", encodeNameservers(strict.nameservers));
    object.load();
    install(pod.strict, (link) => link.info().cgroupId === cgroupId, {
      update: (link) => object.replaceProgram(link, PROGRAM),
      attach: () => object.attachCgroup(PROGRAM, strict.cgroup),
    });
  } finally {
    object.close();
  }
}

/** Zero where no pod has asked for it yet. */
export function strictCounters(pins: Pins) {
  const path = pins.map(COUNTERS);
  if (!existsSync(path)) return ZERO;
  const map = BpfMap.openPinned(path);
  try {
    return readCounters(map, STRICT_COUNTERS);
  } finally {
    map.close();
  }
}

const ZERO = {
  strictBlockedTcp: 0,
  strictBlockedProtocol: 0,
  strictReportedTcp: 0,
  strictReportedProtocol: 0,
} as const satisfies Record<(typeof STRICT_COUNTERS)[number], number>;

function checkCgroup({ cgroup, nameservers }: StrictEgress): bigint {
  const refuse = (reason: string, cause?: unknown) => {
    const message = `Cannot be strict about egress of cgroup "${cgroup}": ${reason}`;
    return new MeshError("REQUEST_REFUSED", message, cause === undefined ? undefined : { cause });
  };
  if (nameservers.length > STRICT_NAMESERVERS) {
    throw refuse(`there are more than ${STRICT_NAMESERVERS} nameservers`);
  }
  try {
    if (statfsSync(cgroup).type === CGROUP2_SUPER_MAGIC) {
      return statSync(cgroup, { bigint: true }).ino;
    }
  } catch (error) {
    throw refuse("it is not there", error);
  }
  throw refuse("it is not in a cgroup2 file system");
}
