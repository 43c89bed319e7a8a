import { closeDescriptor, errnoOf, type Netns, openNetns } from "#native/kernel/index.ts";
import type { TunnelEngine } from "#wire/hbone/engine.ts";
import type { Datapath } from "../kernel/datapath.ts";
import type { ProxyContext } from "../proxy/context.ts";
import type { PodDnsOptions } from "../proxy/pod-dns.ts";
import { openPodProxy, type PodProxy } from "../proxy/pod-proxy.ts";
import type { PodHost } from "./enrollment-loop.ts";

/** errno.h: no such path, no such process, and a /proc entry whose process has just ended. */
const GONE: readonly (number | undefined)[] = [2, 3];

export interface KernelHostOptions {
  readonly context: ProxyContext;
  readonly datapath: Datapath;
  readonly createEngine: () => TunnelEngine;
  readonly ipv6: boolean;
  readonly dns: PodDnsOptions | undefined;
  readonly onOpened: () => void;
  readonly onDrained: () => void;
}

/** Enrols pods with the kernel of this host. */
export function createKernelHost(options: KernelHostOptions): PodHost<Netns, PodProxy> {
  const { context, datapath, createEngine, ipv6, dns, onOpened, onDrained } = options;
  return {
    openNetns: openNetnsIfThere,
    open: (pod, netns) => {
      const shared = { context, datapath, createEngine, ipv6, dns, closeDescriptor, onDrained };
      const proxy = openPodProxy(shared, pod, netns);
      onOpened();
      return proxy;
    },
    release: (uid) => datapath.forget(uid),
  };
}

/** Undefined where nothing is at `path` any more. */
export function openNetnsIfThere(path: string): Netns | undefined {
  try {
    return openNetns(path);
  } catch (error) {
    if (GONE.includes(errnoOf(error))) return undefined;
    throw error;
  }
}
