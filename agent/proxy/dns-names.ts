/** What the mesh itself answers to a DNS query. */
import type { Answer, Packet } from "dns-packet";
import { isIpv4 } from "#core/ip.ts";
import type { MeshIndex } from "#core/service/mesh-index.ts";
import { resolveName } from "#core/service/resolve-name.ts";
import type { Workload } from "#core/service/workload.ts";
import { type DnsQuery, isEchoable, respond } from "./dns-message.ts";

/** As ztunnel: addresses of services change seldom, and those of headless ones with every pod. */
const TTL_SECONDS = 30;

export interface NameContext {
  readonly index: MeshIndex;
  /** The workload that asks. */
  readonly client: Workload;
  /** Of the client's resolv.conf. */
  readonly searchDomains: readonly string[];
  /** In [0, 1). */
  readonly random: () => number;
}

/** @returns undefined for what the mesh knows nothing of: that is for the nameserver */
export function answerFromMesh(query: DnsQuery, context: NameContext): Packet | undefined {
  const { question } = query;
  const { type, name } = question;
  if ((type !== "A" && type !== "AAAA") || (question.class ?? "IN") !== "IN") return undefined;
  if (!isEchoable(query)) return undefined;
  const family = type === "A" ? "ipv4" : "ipv6";
  const found = resolveName(context.index, { ...context, name, family });
  if (found.kind === "unknown") return undefined;
  // A name without such an address exists all the same: NOERROR, and nothing in it.
  if (found.addresses.length === 0) return respond(query, []);
  const isAlias = found.hostname !== name.toLowerCase();
  const owner = isAlias ? found.hostname : name;
  const alias: Answer = { type: "CNAME", name, ttl: TTL_SECONDS, data: owner };
  const records = found.addresses.map((ip): Answer => {
    return { type: isIpv4(ip) ? "A" : "AAAA", name: owner, ttl: TTL_SECONDS, data: ip };
  });
  return respond(query, isAlias ? [alias, ...records] : records);
}
