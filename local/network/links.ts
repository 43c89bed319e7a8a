/**
 * The network of a simulated cluster, as lines for `ip -batch`.
 *
 *   fabric:  bridge fabric0 ── node1 node2 …    control and DNS listen here
 *                                │
 *   node:                       eth0    pod2 pod3 …    a router between all of them
 *                                        │
 *   pod:                                eth0           /32 and /128, everything through the node
 *
 * A pod has a link of its own to its node, and no neighbours: every packet passes the node, which
 * is where addresses of services are rewritten, in both directions. On a bridge the node would
 * tell pods by ICMPv6 redirects to talk to each other directly, past the rewriting.
 */
import {
  CONTROL_ADDRESS,
  DNS_ADDRESS,
  type DualAddress,
  gatewayAddress,
  nodeAddress,
  podBlocks,
  SERVICE_BLOCKS,
} from "../addresses.ts";

export interface NodePlace {
  /** From 1. */
  readonly number: number;
  readonly netns: string;
}

/** In the fabric's namespace, after all namespaces are made. */
export function fabricLinks(nodes: readonly NodePlace[]): readonly string[] {
  return [
    "link set lo up",
    "link add fabric0 type bridge mcast_snooping 0",
    ...addresses(CONTROL_ADDRESS, "fabric0", { ipv4: 24, ipv6: 64 }),
    "link set fabric0 up",
    ...addresses(DNS_ADDRESS, "lo", { ipv4: 32, ipv6: 128 }),
    ...nodes.flatMap(({ number, netns }) => [
      `link add node${number} type veth peer name eth0 netns ${netns}`,
      `link set node${number} master fabric0 up`,
      ...routesToPods(number, "fabric0"),
    ]),
  ];
}

/** In the node's namespace, after `fabricLinks()`. */
export function nodeLinks(number: number, others: readonly number[]): readonly string[] {
  return [
    "link set lo up",
    ...addresses(nodeAddress(number), "eth0", { ipv4: 24, ipv6: 64 }),
    "link set eth0 up",
    `route add ${DNS_ADDRESS.ipv4}/32 via ${CONTROL_ADDRESS.ipv4}`,
    `route add ${DNS_ADDRESS.ipv6}/128 via ${CONTROL_ADDRESS.ipv6} dev eth0`,
    // Never travelled: what has such an address is rewritten before, or refused.
    `route add ${SERVICE_BLOCKS.ipv4} dev eth0`,
    `route add ${SERVICE_BLOCKS.ipv6} dev eth0`,
    ...others.flatMap((other) => routesToPods(other, "eth0")),
  ];
}

/**
 * Settings of a router, for `/proc/sys/net` of its namespace. Frames of a bridge would otherwise
 * pass the nftables rules of the fabric.
 */
export const ROUTER_SETTINGS = {
  "ipv4/ip_forward": 1,
  "ipv6/conf/all/forwarding": 1,
  "bridge/bridge-nf-call-iptables": 0,
  "bridge/bridge-nf-call-ip6tables": 0,
} as const;

export function podLinkName(podNumber: number): string {
  return `pod${podNumber}`;
}

/** In the node's namespace. Each of these links has the node's address: /32, so it is no clash. */
export function podUplink(node: number, podNumber: number, podNetns: string, pod: DualAddress) {
  const link = podLinkName(podNumber);
  return [
    `link add ${link} type veth peer name eth0 netns ${podNetns}`,
    ...addresses(gatewayAddress(node), link, { ipv4: 32, ipv6: 128 }),
    `link set ${link} up`,
    `route add ${pod.ipv4} dev ${link}`,
    `route add ${pod.ipv6} dev ${link}`,
  ];
}

/** In the pod's namespace, after `podUplink()`. */
export function podLinks(node: number, pod: DualAddress): readonly string[] {
  const gateway = gatewayAddress(node);
  return [
    "link set lo up",
    ...addresses(pod, "eth0", { ipv4: 32, ipv6: 128 }),
    "link set eth0 up",
    `route add ${gateway.ipv4} dev eth0`,
    `route add default via ${gateway.ipv4}`,
    `route add ${gateway.ipv6} dev eth0`,
    `route add default via ${gateway.ipv6} dev eth0`,
  ];
}

/** `nodad`: nobody else is there, and an address on probation cannot be used for a second. */
function addresses(
  { ipv4, ipv6 }: DualAddress,
  link: string,
  length: { readonly ipv4: number; readonly ipv6: number },
): readonly string[] {
  return [
    `addr add ${ipv4}/${length.ipv4} dev ${link}`,
    `addr add ${ipv6}/${length.ipv6} dev ${link} nodad`,
  ];
}

function routesToPods(node: number, link: string): readonly string[] {
  const block = podBlocks(node);
  const { ipv4, ipv6 } = nodeAddress(node);
  return [
    `route add ${block.ipv4} via ${ipv4} dev ${link}`,
    `route add ${block.ipv6} via ${ipv6} dev ${link}`,
  ];
}
