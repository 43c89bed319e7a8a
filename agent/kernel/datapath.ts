/**
 * The kernel side of the mesh on one node, as the rest of the agent sees it.
 *
 * Everything is pinned (`pins.ts`), so that it outlives the agent: a connection of an enrolled pod
 * is then refused, never let through. A later `openDatapath()` with the same pins takes over.
 */
import type { IpAddress, SocketAddress } from "#core/ip.ts";
import type { Netns } from "#native/kernel/index.ts";
import type { Counter } from "./layout.ts";

export interface DatapathOptions {
  /** Where on a BPF file system the pins are; one agent's own, made where it is missing. */
  readonly pinDir: string;
  /** The part of the cgroup2 tree that pods and agent live in. Must not lie in another agent's. */
  readonly cgroupRoot: string;
  /** Where the compiled objects (`*.bpf.o`) are. */
  readonly objectDir: string;
}

export interface CapturedPod {
  /** Kubernetes' uid of the pod: letters, digits, `-` and `_`. */
  readonly uid: string;
  /** Only used during the call; stays the caller's to close. */
  readonly netns: Netns;
  /** One or two: not more than one of a family. */
  readonly addresses: readonly IpAddress[];
  /** 1 to 2^32-1. Pods that no verdict can tell apart may share one. */
  readonly id: number;
}

/** Descriptors of listening sockets in the pod's network namespace. They stay the caller's. */
export interface Listeners {
  /** Connections from outside the mesh, to any port. */
  readonly in4?: number;
  readonly in6?: number;
  /** The pod's own connections. */
  readonly out4?: number;
  readonly out6?: number;
  /** Tunnels: connections to port 15008. */
  readonly hbone4?: number;
  readonly hbone6?: number;
}

/** The capture of one pod's connections. */
export interface PodCapture {
  readonly uid: string;
  /**
   * Sends new connections to these listeners. A slot without one refuses. A listener that is
   * closed leaves its slot by itself; one that is replaced keeps what it has already queued.
   */
  setListeners(listeners: Listeners): void;
  /** From now on outbound connections are captured instead of failing with EPERM. Idempotent. */
  unblock(): void;
  /** New outbound connections fail with EPERM. Idempotent. */
  block(): void;
  /** Un-enrols the pod: new connections are left alone. Those that are captured go on. */
  remove(): void;
}

export interface Datapath {
  /**
   * Puts a pod under capture, blocked until `unblock()`, refused inbound until `setListeners()`.
   * A pod that was enrolled before, by this agent or by a dead one, is taken over as it is.
   */
  enrol(pod: CapturedPod): PodCapture;
  /** The uids that pins exist for, of dead network namespaces too. */
  adopted(): readonly string[];
  /** Un-enrols a pod by its pins alone, whether its network namespace still exists or not. */
  forget(uid: string): void;
  /**
   * Where a connection that the outbound listener accepted was going.
   *
   * @param fd  of the accepted socket, see `fdOf()`
   * @returns undefined where it was not captured: refuse it
   */
  originalDestination(fd: number): SocketAddress | undefined;
  /**
   * Exempts a socket of the agent from capture. Call before it connects.
   *
   * @param showClient  what the application that accepts it will see as its peer
   */
  markAgentSocket(fd: number, showClient?: SocketAddress): void;
  /** How often each outcome occurred since the pins were made. */
  counters(): Readonly<Record<Counter, number>>;
  /** Gives up what this process holds; capture stays in force. */
  close(): void;
  /** Un-enrols all pods and removes every trace. */
  uninstall(): void;
}

/** @throws MeshError `KERNEL_CALL_FAILED`, `KERNEL_UNSUPPORTED` where the pins are of a newer agent */
export declare function openDatapath(options: DatapathOptions): Datapath;
