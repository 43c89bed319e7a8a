/** The proxy of one pod: its capture, its listeners, and an engine for its connections. */
import { randomUUID } from "node:crypto";
import type { IpAddress, SocketAddress } from "#core/ip.ts";
import { isIpv4 } from "#core/ip.ts";
import type { Listener, TunnelEngine } from "#wire/hbone/engine.ts";
import type { FixedSockets, ListenerRole, Listeners } from "../kernel/datapath.ts";
import type { StrictEgress } from "../kernel/strict-egress.ts";
import { untilQuiet } from "../takeover/quiet.ts";
import type { StoredPod } from "../workload/pod-store.ts";
import type { PodPlace, PodSocketOptions, ProxyContext } from "./context.ts";
import { listenerPlace, unboundForClient, withDialledEnd } from "./fixed-sockets.ts";
import { acceptPlaintext, tunnelListenerOptions } from "./inbound.ts";
import { acceptOutbound } from "./outbound.ts";
import {
  type DnsCapturing,
  type DnsNetns,
  openPodDns,
  type PodDns,
  type PodDnsOptions,
  type PodDnsParts,
} from "./pod-dns.ts";

/** What the proxy needs of a network namespace. */
export interface PodNetns extends DnsNetns {
  cookie(): bigint;
  openSocket(options: { readonly family: "ipv4" | "ipv6"; readonly bind?: IpAddress }): number;
  close(): void;
}

/** What the proxy needs of the kernel side. `Datapath` has all of it. */
export interface PodDatapath<Netns> {
  enrol(pod: {
    readonly uid: string;
    readonly netns: Netns;
    readonly addresses: readonly IpAddress[];
    readonly id: number;
    readonly probePorts?: readonly number[] | undefined;
    readonly strictEgress?: StrictEgress | undefined;
  }): DnsCapturing & { setListeners(listeners: Listeners): void; unblock(): void };
  /** Undefined where listeners may be anywhere. */
  readonly fixedSockets?: FixedSockets | undefined;
  originalDestination(fd: number): SocketAddress | undefined;
  markAgentSocket(fd: number, showClient?: SocketAddress): void;
}

export interface PodProxyOptions<Netns> {
  readonly context: ProxyContext;
  readonly datapath: PodDatapath<Netns>;
  /** False leaves IPv6 without listeners: what is captured of it is then refused. */
  readonly ipv6: boolean;
  /** Undefined leaves the queries of all pods alone. */
  readonly dns: PodDnsOptions | undefined;
  readonly createEngine: () => TunnelEngine;
  /** Closes a descriptor that nobody took over. */
  readonly closeDescriptor: (fd: number) => void;
  /** The last connection of a pod that has left has ended. */
  readonly onDrained: () => void;
}

/** As many as a burst of a pod's clients may need; the kernel cuts it to its own limit. */
const BACKLOG = 4096;

/** What happens where another process takes over from this one, or fails to. */
interface Succession {
  untilQuiet(listeners: readonly Listener[]): Promise<void>;
  reclaim(): void;
}

/** @see openPodProxy() */
export class PodProxy {
  readonly pod: StoredPod;
  readonly engine: TunnelEngine;
  /** By which the kernel names the pod in what it tells of its connections. */
  readonly netnsCookie: bigint;
  readonly #netns: PodNetns;
  readonly #listeners: readonly Listener[];
  readonly #dns: PodDns | undefined;
  readonly #succession: Succession;
  readonly #onDrained: () => void;

  constructor(
    pod: StoredPod,
    netns: PodNetns,
    engine: TunnelEngine,
    listeners: readonly Listener[],
    dns: PodDns | undefined,
    succession: Succession,
    onDrained: () => void,
  ) {
    this.pod = pod;
    this.netnsCookie = netns.cookie();
    this.#netns = netns;
    this.engine = engine;
    this.#listeners = listeners;
    this.#dns = dns;
    this.#succession = succession;
    this.#onDrained = onDrained;
  }

  /** Accepts nothing more, says GOAWAY, and lets what is connected end within the limit. */
  async drain(limitMs: number): Promise<void> {
    for (const listener of this.#listeners) listener.close();
    this.#dns?.close();
    await this.engine.drain(limitMs);
    this.engine.close();
    this.#netns.close();
    this.#onDrained();
  }

  /** Another process has the slots: whoever still comes here is served before `drain()`. */
  async retire(limitMs: number): Promise<void> {
    await this.#succession.untilQuiet(this.#listeners);
    await this.drain(limitMs);
  }

  /** Takes the pod's slots back. */
  reclaim(): void {
    this.#succession.reclaim();
  }
}

/**
 * Captures a pod and serves it. The pod is blocked from the first moment until its listeners stand,
 * and stays so where that fails.
 *
 * @param netns  belongs to the proxy from now on, also where this throws
 */
export function openPodProxy<Netns extends PodNetns>(
  options: PodProxyOptions<Netns>,
  pod: StoredPod,
  netns: Netns,
): PodProxy {
  const engine = options.createEngine();
  let dns: PodDns | undefined;
  try {
    const { uid, addresses, id, probePorts } = pod;
    const strictEgress = strictEgressOf(pod);
    const facts = { uid, netns, addresses, id, probePorts, strictEgress };
    const enrol = () => options.datapath.enrol(facts);
    const capture = enrol();
    const place = placeOf(options, pod, netns, (server) => dns?.overTcp(server));
    const listeners: Listener[] = [];
    const slots = listenFor(options, place, netns, engine, listeners);
    capture.setListeners(slots);
    dns = dnsFor(options, pod, { place, netns, capture });
    capture.unblock();
    const succession: Succession = {
      untilQuiet: (each) => untilQuiet(each, options.context.timers),
      reclaim: () => {
        const again = enrol();
        again.setListeners(slots);
        again.unblock();
      },
    };
    return new PodProxy(pod, netns, engine, listeners, dns, succession, options.onDrained);
  } catch (error) {
    dns?.close();
    engine.close();
    netns.close();
    throw error;
  }
}

function dnsFor<Netns extends PodNetns>(
  { dns, context, ipv6, ...options }: PodProxyOptions<Netns>,
  pod: StoredPod,
  parts: Pick<PodDnsParts, "place" | "netns" | "capture">,
): PodDns | undefined {
  if (dns === undefined || pod.dns?.capture === false) {
    parts.capture.setDns(undefined);
    return undefined;
  }
  const mark = (fd: number) => markOrClose(options, fd, undefined);
  return openPodDns(dns, pod, { ...parts, context, ipv6, mark });
}

function strictEgressOf({ strictEgress, dns }: StoredPod): StrictEgress | undefined {
  return strictEgress && { ...strictEgress, nameservers: dns?.nameservers ?? [] };
}

function markOrClose<Netns>(
  { datapath, closeDescriptor }: Pick<PodProxyOptions<Netns>, "datapath" | "closeDescriptor">,
  fd: number,
  showClient: SocketAddress | undefined,
): number {
  try {
    datapath.markAgentSocket(fd, showClient);
    return fd;
  } catch (error) {
    closeDescriptor(fd);
    throw error;
  }
}

function placeOf<Netns extends PodNetns>(
  options: PodProxyOptions<Netns>,
  pod: StoredPod,
  netns: PodNetns,
  dnsOverTcp: PodPlace["dnsOverTcp"],
): PodPlace {
  const { uid, name, namespace, serviceAccount, addresses } = pod;
  return {
    uid,
    name,
    namespace,
    serviceAccount,
    addresses,
    instance: randomUUID(),
    originalDestination: (fd) => options.datapath.originalDestination(fd),
    openSocket: (wanted: PodSocketOptions) => {
      const { family, bind, showClient } = unboundForClient(options.datapath.fixedSockets, wanted);
      const fd = netns.openSocket(bind === undefined ? { family } : { family, bind });
      return markOrClose(options, fd, showClient);
    },
    dnsOverTcp,
  };
}

/** Opens the listeners of each family that the pod has an address of. */
function listenFor<Netns>(
  { context, datapath: { fixedSockets }, ipv6: isIpv6On }: PodProxyOptions<Netns>,
  place: PodPlace,
  netns: PodNetns,
  engine: TunnelEngine,
  opened: Listener[],
): Listeners {
  type Serve = (fd: number) => Listener;
  const open = (role: ListenerRole, family: "ipv4" | "ipv6", serve: Serve): number => {
    const { ip, port } = listenerPlace(fixedSockets, role, family);
    const fd = netns.listen({ ip, port, backlog: BACKLOG });
    opened.push(serve(fd));
    return fd;
  };
  const openAll = (family: "ipv4" | "ipv6") => ({
    outbound: open("outbound", family, (fd) =>
      engine.listenPlain(fd, (connection) => acceptOutbound(context, place, connection)),
    ),
    inbound: open("inbound", family, (fd) =>
      engine.listenPlain(fd, (connection) =>
        acceptPlaintext(context, place, withDialledEnd(fixedSockets, connection)),
      ),
    ),
    hbone: open("hbone", family, (fd) =>
      engine.listenTunnel(fd, tunnelListenerOptions(context, place)),
    ),
  });
  const ipv4 = place.addresses.some(isIpv4) ? openAll("ipv4") : undefined;
  const hasIpv6 = isIpv6On && !place.addresses.every(isIpv4);
  const ipv6 = hasIpv6 ? openAll("ipv6") : undefined;
  return {
    ...(ipv4 && { out4: ipv4.outbound, in4: ipv4.inbound, hbone4: ipv4.hbone }),
    ...(ipv6 && { out6: ipv6.outbound, in6: ipv6.inbound, hbone6: ipv6.hbone }),
  };
}
