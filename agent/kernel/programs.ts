/**
 * Loads the compiled programs and puts them in force, or a newer build of them in the place of an
 * older one. A link that exists is updated, never replaced: there is no moment without a program.
 */
import { existsSync, fstatSync, statSync, unlinkSync } from "node:fs";
import { join } from "node:path";
import { MeshError } from "#core/errors.ts";
import { BpfLink, BpfMap, BpfObject, cgroupExists, type Netns } from "#native/kernel/index.ts";
import {
  ABI,
  decodeMeta,
  encodeMeta,
  encodeUint16,
  encodeUint32,
  encodeUint64,
  HBONE_PORT,
  OUT_PORT,
} from "./layout.ts";
import type { Pins, PodPins } from "./pins.ts";

const SHARED_MAPS = [
  ...(["pods", "notes", "handoff", "counters", "meta"] as const),
  ...(["local_ips", "attest", "policy", "services", "endpoints"] as const),
  ...(["denies", "flow_losses"] as const),
] as const;
type SharedMap = (typeof SHARED_MAPS)[number];
export type SharedMaps = Readonly<Record<SharedMap, BpfMap>>;

/** Which programs each object has for the agent's cgroup. */
const CGROUP_PROGRAMS = {
  "sockops.bpf.o": ["mesh_sockops"],
  "peer.bpf.o": ["peer_name4", "peer_name6"],
  // Last: a connection that is captured needs the others to arrive.
  "connect.bpf.o": ["out_connect4", "out_connect6"],
} as const;

const INSTANCE = {
  object: "inbound.bpf.o",
  program: "in_lookup",
  map: "listeners",
  /** Of probe.bpf.o. */
  shared: ["probe_ports", "probe_counters"],
} as const;

/** @throws MeshError `KERNEL_UNSUPPORTED` where the pinned maps have another layout */
export function checkAbi(pins: Pins): void {
  checkAbiOf(pins.map("meta"));
}

/** @param path  of the pinned map `meta` */
export function checkAbiOf(path: string): void {
  if (!existsSync(path)) return;
  const meta = BpfMap.openPinned(path);
  try {
    const value = meta.lookup(encodeUint32(0));
    // The first number says how to read the rest, of which an older layout has less.
    const abi = value === undefined ? 0 : new DataView(value.buffer).getUint32(0, true);
    // 0: whoever made it died before it could say, and so before it could enrol a pod.
    if (abi !== 0 && abi !== ABI) {
      const reason = `pins have layout ${abi}, this agent knows ${ABI}`;
      throw new MeshError("KERNEL_UNSUPPORTED", `Cannot take over "${meta.name}": ${reason}`);
    }
  } finally {
    meta.close();
  }
}

/** Puts the cgroup's programs in force. @returns the maps that they share */
export function installCgroupPrograms(
  pins: Pins,
  objectDir: string,
  cgroupRoot: string,
): SharedMaps {
  const maps: Partial<Record<SharedMap, BpfMap>> = {};
  for (const [file, programs] of Object.entries(CGROUP_PROGRAMS)) {
    const object = openObject(pins, objectDir, file);
    try {
      object.load();
      for (const name of SHARED_MAPS) maps[name] ??= object.openMap(name);
      for (const program of programs) installOnCgroup(object, program, pins, cgroupRoot);
    } finally {
      object.close();
    }
  }
  // Complete: every object has every shared map.
  const complete = maps as SharedMaps;
  const before = complete.meta.lookup(encodeUint32(0));
  // 0 is the wildcard in keys of policies: the first number is 1.
  const nextId = Math.max(1, before === undefined ? 0 : decodeMeta(before).nextId);
  complete.meta.update(encodeUint32(0), encodeMeta({ abi: ABI, nextId }));
  return complete;
}

/** Puts a pod's own instance in force. @returns its listeners' slots */
export function installInstance(pins: Pins, pod: PodPins, objectDir: string, netns: Netns): BpfMap {
  const object = openObject(pins, objectDir, INSTANCE.object);
  try {
    object.setPinPath(INSTANCE.map, pod.listeners);
    for (const name of INSTANCE.shared) object.setPinPath(name, pins.map(name));
    object.setConstant("out_port", encodeUint16(OUT_PORT));
    object.setConstant("hbone_port", encodeUint16(HBONE_PORT));
    object.setConstant("self_netns", encodeUint64(netns.cookie()));
    object.load();
    installOnNetns(object, pod, netns);
    return object.openMap(INSTANCE.map);
  } finally {
    object.close();
  }
}

/** @returns an object whose shared maps will be the pinned ones */
export function openObject(pins: Pins, objectDir: string, file: string): BpfObject {
  const object = new BpfObject(join(objectDir, file));
  for (const name of SHARED_MAPS) object.setPinPath(name, pins.map(name));
  return object;
}

/** Attaches a program, or puts it in the place of the one that is pinned. */
export function installOnCgroup(
  object: BpfObject,
  program: string,
  pins: Pins,
  cgroupRoot: string,
): void {
  const path = pins.link(program);
  const cgroupId = statSync(cgroupRoot, { bigint: true }).ino;
  const isOurs = (link: BpfLink) => {
    const attached = link.info().cgroupId ?? 0n;
    if (attached === cgroupId) return true;
    if (attached !== 0n && cgroupExists(cgroupRoot, attached)) {
      const reason = `pin "${path}" is for another cgroup`;
      throw new MeshError("SETTINGS_INVALID", `Cannot attach to "${cgroupRoot}": ${reason}`);
    }
    return false;
  };
  install(path, isOurs, {
    update: (link) => object.replaceProgram(link, program),
    attach: () => object.attachCgroup(program, cgroupRoot),
  });
}

function installOnNetns(object: BpfObject, pod: PodPins, netns: Netns): void {
  const inode = fstatSync(netns.fd).ino;
  install(pod.lookup, (link) => link.info().netnsInode === inode, {
    update: (link) => object.replaceProgram(link, INSTANCE.program),
    attach: () => object.attachNetns(INSTANCE.program, netns),
  });
}

export interface Installer {
  readonly update: (link: BpfLink) => void;
  readonly attach: () => BpfLink;
}

/** A link whose cgroup or network namespace is gone enforces nothing; its pin makes room. */
export function install(path: string, isOurs: (link: BpfLink) => boolean, how: Installer): void {
  if (existsSync(path)) {
    const pinned = BpfLink.openPinned(path);
    try {
      if (isOurs(pinned)) {
        how.update(pinned);
        return;
      }
    } finally {
      pinned.close();
    }
    unlinkSync(path);
  }
  const link = how.attach();
  try {
    link.pin(path);
  } finally {
    link.close();
  }
}
