/**
 * How a node carries connections to services for pods outside the mesh: the destination is
 * rewritten to a random endpoint, and an address without one refuses.
 */
import { formatSocketAddress, type IpAddress, isIpv4 } from "#core/ip.ts";
import { DNS_ADDRESS, SERVICE_BLOCKS } from "../addresses.ts";
import type { Backend } from "../plan/endpoints.ts";

const FAMILIES = ["ip", "ip6"] as const;
type Family = (typeof FAMILIES)[number];

/**
 * The whole table, as nft reads it in one transaction: at no moment are there no rules, or half of
 * them.
 *
 * @param pods  all that may be behind a service. One that reaches itself through its service would
 *   see its own address as the source of a packet from outside, and drop it; so the node hides it.
 */
export function rulesetOf(backends: readonly Backend[], pods: readonly IpAddress[]): string {
  const chains = backends.flatMap((backend, index) => chainOf(backend, `service${index}`));
  const lines = [
    "table inet aquifer",
    "delete table inet aquifer",
    "table inet aquifer {",
    ...FAMILIES.map((family) => selfSet(family, pods)),
    ...chains,
    "chain services {",
    ...FAMILIES.flatMap((family) => dispatch(family, backends)),
    "}",
    "chain prerouting { type nat hook prerouting priority -100; jump services; }",
    "chain output { type nat hook output priority -100; jump services; }",
    "chain postrouting {",
    "type nat hook postrouting priority 100;",
    ...FAMILIES.map((family) => `${family} saddr . ${family} daddr @self-${family} masquerade`),
    "}",
    "chain refuse {",
    "meta l4proto tcp reject with tcp reset",
    "reject with icmpx type port-unreachable",
    "}",
    // Whatever still has the address of a service here has found no endpoint.
    ...["forward", "output"].map((hook) => refuseAt(hook)),
    "}",
  ];
  return `${lines.join("\n")}\n`;
}

function selfSet(family: Family, pods: readonly IpAddress[]): string {
  const type = family === "ip" ? "ipv4_addr" : "ipv6_addr";
  const own = pods.filter((ip) => isIpv4(ip) === (family === "ip"));
  const elements = own.map((ip) => `${ip} . ${ip}`).join(", ");
  const list = own.length === 0 ? "" : ` elements = { ${elements} };`;
  return `set self-${family} { type ${type} . ${type};${list} }`;
}

function chainOf({ address, protocol, affinity, targets }: Backend, name: string): string[] {
  if (targets.length === 0) return [];
  const family = isIpv4(address) ? "ip" : "ip6";
  const choice = affinity ? `jhash ${family} saddr` : "numgen random";
  const map = targets.map(({ ip, port }, index) => `${index} : ${ip} . ${port}`).join(", ");
  const to = `dnat ${family} to ${choice} mod ${targets.length} map { ${map} }`;
  return [`chain ${name} { meta l4proto ${protocol.toLowerCase()} ${to}; }`];
}

function dispatch(family: Family, backends: readonly Backend[]): string[] {
  const seen = new Set<string>();
  const elements = backends.flatMap(({ address, protocol, port, targets }, index) => {
    if (targets.length === 0 || isIpv4(address) !== (family === "ip")) return [];
    const key = `${address} . ${protocol.toLowerCase()} . ${port}`;
    if (seen.has(key)) {
      throw new TypeError(`${formatSocketAddress({ ip: address, port })} is there twice`);
    }
    seen.add(key);
    return [`${key} : goto service${index}`];
  });
  if (elements.length === 0) return [];
  return [`${family} daddr . meta l4proto . th dport vmap { ${elements.join(", ")} }`];
}

function refuseAt(hook: string): string {
  const { ipv4, ipv6 } = SERVICE_BLOCKS;
  return [
    `chain refuse-${hook} {`,
    `type filter hook ${hook} priority 0;`,
    `ip daddr ${ipv4} ip daddr != ${DNS_ADDRESS.ipv4} goto refuse`,
    `ip6 daddr ${ipv6} ip6 daddr != ${DNS_ADDRESS.ipv6} goto refuse`,
    "}",
  ].join("\n");
}
