/** What the proxies of all pods share, and what each pod's has of its own. */
import type { IpAddress, SocketAddress } from "#core/ip.ts";
import type { WorkloadUid } from "#core/service/workload.ts";
import type { SpiffeId } from "#core/spiffe-id.ts";
import type { Dial } from "#wire/hbone/engine.ts";
import type { HeldCertificate } from "../identity/certificate-store.ts";
import type { Logger } from "../log.ts";
import type { Timers } from "../timers.ts";
import type { PodUid } from "../workload/pod.ts";
import type { ConnectionLog } from "./connection-log.ts";
import type { LiveInbound } from "./live-inbound.ts";
import type { LocalPod, MeshState } from "./mesh-state.ts";

export interface ProxyContext {
  readonly state: MeshState;
  readonly certificates: Certificates;
  readonly connections: ConnectionLog;
  readonly live: LiveInbound;
  readonly outstanding: Outstanding;
  readonly timers: Timers;
  /** In [0, 1). */
  readonly random: () => number;
  readonly log: Logger;
  readonly counts: ProxyCounts;
}

export interface Certificates {
  current(identity: SpiffeId): HeldCertificate | undefined;
  /** @throws MeshError where there is none within 5 s */
  obtain(identity: SpiffeId): Promise<HeldCertificate>;
}

/** For metrics. */
export interface ProxyCounts {
  /** Connections on an outbound listener that were not captured. */
  notCaptured: number;
  /** Attempts at another endpoint after one could not be connected to. */
  endpointRetries: number;
  /** Inbound sessions that ended before their first request. */
  handshakesFailed: number;
  /** Live connections that a change of policy has closed. */
  closedByPolicy: number;
}

/** A pod's place on this node: the way to sockets in its network namespace. */
export interface PodPlace extends LocalPod {
  readonly uid: PodUid;
  /** Differs between two enrolments of one pod, whose sessions must not be mixed. */
  readonly instance: string;
  /** Where a captured connection was going; undefined where it was not captured. */
  originalDestination(fd: number): SocketAddress | undefined;
  /** An unconnected socket in the pod's namespace that its capture leaves alone. */
  openSocket(options: PodSocketOptions): number;
  /** Where a connection to a nameserver of the pod is answered by the agent itself. */
  dnsOverTcp(server: SocketAddress): SocketAddress | undefined;
}

export interface PodSocketOptions {
  readonly family: "ipv4" | "ipv6";
  readonly bind?: IpAddress;
  /** What the application that accepts the connection sees as its peer. */
  readonly showClient?: SocketAddress;
}

/** Connections that this node has to an endpoint, for choosing among endpoints. */
export class Outstanding {
  readonly #counts = new Map<WorkloadUid, number>();

  of(uid: WorkloadUid): number {
    return this.#counts.get(uid) ?? 0;
  }

  /** @returns a function to be called once, when the connection has ended */
  begin(uid: WorkloadUid): () => void {
    this.#counts.set(uid, this.of(uid) + 1);
    return () => {
      const left = this.of(uid) - 1;
      if (left > 0) this.#counts.set(uid, left);
      else this.#counts.delete(uid);
    };
  }
}

const CONNECT_TIMEOUT_MS = 10_000;

/** A connection from the pod's namespace to `address`. */
export function dialFrom(
  pod: PodPlace,
  address: SocketAddress,
  options: Omit<PodSocketOptions, "family"> = {},
): Dial {
  const family = address.ip.includes(":") ? "ipv6" : "ipv4";
  return {
    openSocket: () => pod.openSocket({ ...options, family }),
    address,
    timeoutMs: CONNECT_TIMEOUT_MS,
  };
}
