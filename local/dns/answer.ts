/** What the cluster DNS says to one query. */
import {
  type Answer,
  AUTHORITATIVE_ANSWER,
  type DecodedPacket,
  type Packet,
  RECURSION_AVAILABLE,
  RECURSION_DESIRED,
} from "dns-packet";
import { isIpv4 } from "#core/ip.ts";
import { CLUSTER_DOMAIN, type Zone } from "./zone.ts";

/** What a response says about the query as a whole (RFC 1035, 4.1.1). */
const RCODE = { noError: 0, formatError: 1, nxDomain: 3, notImplemented: 4, refused: 5 } as const;

const OPCODE_QUERY = 0;

/** As CoreDNS' kubernetes plugin: endpoints come and go. */
const TTL_SECONDS = 5;

/** What we say we can take in one datagram; no answer of a cluster of this size needs more. */
const UDP_PAYLOAD_BYTES = 1_232;

/** Where a chain of aliases ends, lest it be a circle. */
const ALIASES_MAX = 8;

/**
 * @param random  in [0, 1): which address comes first
 * @returns a whole response: for UDP it may have to be cut
 */
export function answer(zone: Zone, query: DecodedPacket, random: number): Packet {
  const [question, second] = query.questions ?? [];
  if (opcodeOf(query) !== OPCODE_QUERY) return respond(query, RCODE.notImplemented, []);
  if (question === undefined || second !== undefined) return respond(query, RCODE.formatError, []);
  if (question.class !== undefined && question.class !== "IN") {
    return respond(query, RCODE.refused, []);
  }
  const answers: Answer[] = [];
  let name = question.name;
  for (let aliases = 0; aliases < ALIASES_MAX; aliases++) {
    // A pod can ask for "constructor" too, which every object has.
    const key = name.toLowerCase();
    const entry = Object.hasOwn(zone, key) ? zone[key] : undefined;
    if (entry === undefined) {
      return respond(query, answers.length > 0 ? RCODE.noError : RCODE.nxDomain, answers);
    }
    if (entry.kind === "addresses") {
      const { type } = question;
      const ips = rotate(entry.addresses, random);
      for (const data of ips) {
        const recordType = isIpv4(data) ? "A" : "AAAA";
        if (type !== recordType) continue;
        answers.push({ name, type: recordType, ttl: TTL_SECONDS, data });
      }
      return respond(query, RCODE.noError, answers);
    }
    answers.push({ name, type: "CNAME", ttl: TTL_SECONDS, data: entry.target });
    name = entry.target;
  }
  return respond(query, RCODE.noError, answers);
}

/** Bits 11 to 14 of the flags (RFC 1035, 4.1.1). */
function opcodeOf({ flags = 0 }: DecodedPacket): number {
  return (flags >> 11) & 0xf;
}

function rotate<Item>(items: readonly Item[], random: number): readonly Item[] {
  const first = Math.floor(random * items.length);
  return [...items.slice(first), ...items.slice(0, first)];
}

function respond(query: DecodedPacket, rcode: number, answers: readonly Answer[]): Packet {
  const asked = query.flags ?? 0;
  const isExtended = query.additionals?.some(({ type }) => type === "OPT") ?? false;
  return {
    type: "response",
    ...(query.id === undefined ? {} : { id: query.id }),
    flags: AUTHORITATIVE_ANSWER | RECURSION_AVAILABLE | (asked & RECURSION_DESIRED) | rcode,
    questions: query.questions ?? [],
    answers: [...answers],
    authorities: answers.length === 0 ? [startOfAuthority()] : [],
    additionals: isExtended
      ? [
          {
            type: "OPT",
            name: ".",
            udpPayloadSize: UDP_PAYLOAD_BYTES,
            flags: 0,
            options: [],
            extendedRcode: 0,
            ednsVersion: 0,
            flag_do: false,
          },
        ]
      : [],
  };
}

/** Says for how long "there is none" may be remembered (RFC 2308, 3). */
function startOfAuthority(): Answer {
  return {
    type: "SOA",
    name: CLUSTER_DOMAIN,
    ttl: TTL_SECONDS,
    data: {
      mname: `ns.dns.${CLUSTER_DOMAIN}`,
      rname: `hostmaster.${CLUSTER_DOMAIN}`,
      serial: 1,
      refresh: 7_200,
      retry: 1_800,
      expire: 86_400,
      minimum: TTL_SECONDS,
    },
  };
}
