/** Sets up the DNS server of a pod, and sends the pod's queries there. */
import { MeshError } from "#core/errors.ts";
import { type IpAddress, isIpv4, type SocketAddress } from "#core/ip.ts";
import type { DnsListeners } from "../kernel/dns.ts";
import { DNS_PORT, DNS_SLOTS, DNS_SLOTS_PER_FAMILY } from "../kernel/dns-layout.ts";
import type { StoredPod } from "../workload/pod-store.ts";
import type { PodPlace, ProxyContext } from "./context.ts";
import { type DnsEvents, DnsServer } from "./dns-server.ts";

export interface PodDnsOptions {
  /** For a query that is forwarded, as a whole. */
  readonly forwardTimeoutMs: number;
  readonly events: DnsEvents;
  /** As of `DnsServerOptions`. */
  readonly claimAddress: (fd: number) => void;
}

/** What it needs of a network namespace. `Netns` has all of it. */
export interface DnsNetns {
  openUdpSocket(options: {
    readonly family: "ipv4" | "ipv6";
    readonly bind?: SocketAddress;
  }): number;
  listen(options: {
    readonly ip: IpAddress;
    readonly port: number;
    readonly backlog: number;
  }): number;
}

/** What it needs of the kernel side. `PodCapture` has all of it. */
export interface DnsCapturing {
  setDns(listeners: DnsListeners | undefined): void;
  dnsPorts(): readonly number[] | undefined;
  dnsServer(slot: number): SocketAddress | undefined;
}

export interface PodDnsParts {
  readonly context: ProxyContext;
  readonly place: PodPlace;
  readonly netns: DnsNetns;
  readonly capture: DnsCapturing;
  /** Exempts a socket from capture. @throws MeshError after it has closed it */
  readonly mark: (fd: number) => number;
  readonly ipv6: boolean;
}

export interface PodDns {
  /** Where a connection to a nameserver's TCP port is answered; undefined for any other server. */
  overTcp(server: SocketAddress): SocketAddress | undefined;
  close(): void;
}

const BACKLOG = 64;
const LOOPBACK = { ipv4: "127.0.0.1" as IpAddress, ipv6: "::1" as IpAddress } as const;

/** What a pod's resolver does unless somebody says otherwise: as the kubelet writes resolv.conf. */
export function defaultSearchDomains(namespace: string): readonly string[] {
  return [`${namespace}.svc.cluster.local`, "svc.cluster.local", "cluster.local"];
}

/** @throws MeshError where the pod's namespace has no room for the sockets */
export function openPodDns(options: PodDnsOptions, pod: StoredPod, parts: PodDnsParts): PodDns {
  const { context, place, netns, capture, mark } = parts;
  const { searchDomains, nameservers } = pod.dns ?? {};
  const abort = new AbortController();
  const server = new DnsServer({
    forwarder: {
      openUdp: (family) => mark(netns.openUdpSocket({ family })),
      openTcp: (family) => place.openSocket({ family }),
      timers: context.timers,
      timeoutMs: options.forwardTimeoutMs,
      signal: abort.signal,
    },
    events: options.events,
    claimAddress: options.claimAddress,
    log: context.log,
    client: () => context.state.waitForLocalWorkload(place),
    names: {
      index: context.state.index,
      searchDomains: searchDomains ?? defaultSearchDomains(pod.namespace),
      random: context.random,
    },
  });
  const close = () => {
    abort.abort();
    server.close();
  };
  try {
    const known = (nameservers ?? []).filter((ip) => isServed(parts, isIpv4(ip)));
    capture.setDns({ ports: serveSlots(server, parts), nameservers: known });
    const listeners = new Map(known.map((ip) => [ip, serveTcp(server, netns, ip)]));
    const overTcp = ({ ip, port }: SocketAddress) => {
      return port === DNS_PORT ? listeners.get(ip) : undefined;
    };
    return { overTcp, close };
  } catch (error) {
    close();
    throw error;
  }
}

/** A pod without an address of a family can reach no nameserver of it either. */
function isServed({ place, ipv6 }: PodDnsParts, isOfIpv4: boolean): boolean {
  return (isOfIpv4 || ipv6) && place.addresses.some((ip) => isIpv4(ip) === isOfIpv4);
}

/** The ports of the last agent are kept, so that sockets that are connected to them go on. */
function serveSlots(server: DnsServer, parts: PodDnsParts): number[] {
  const { netns, capture, mark } = parts;
  const last = capture.dnsPorts() ?? [];
  return Array.from({ length: DNS_SLOTS }, (_, slot) => {
    const family = slot < DNS_SLOTS_PER_FAMILY ? "ipv4" : "ipv6";
    if (!isServed(parts, family === "ipv4")) return 0;
    const open = (port: number) =>
      netns.openUdpSocket({ family, bind: { ip: LOOPBACK[family], port } });
    const fd = mark(
      openOrElse(
        () => open(last[slot] ?? 0),
        () => open(0),
      ),
    );
    return server.serveUdp(fd, LOOPBACK[family], () => capture.dnsServer(slot));
  });
}

function serveTcp(server: DnsServer, netns: DnsNetns, nameserver: IpAddress): SocketAddress {
  const ip = LOOPBACK[isIpv4(nameserver) ? "ipv4" : "ipv6"];
  const fd = netns.listen({ ip, port: 0, backlog: BACKLOG });
  return server.serveTcp(fd, { ip: nameserver, port: DNS_PORT });
}

/** A port that somebody has taken meanwhile is not worth more than another try. */
function openOrElse(open: () => number, otherwise: () => number): number {
  try {
    return open();
  } catch (error) {
    if (!(error instanceof MeshError)) throw error;
    return otherwise();
  }
}
