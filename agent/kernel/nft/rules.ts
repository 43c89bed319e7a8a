/**
 * What is written into a pod's network namespace where the kernel cannot run our programs there.
 *
 * NAT decides by a connection's first packet, and a peer has ways to make conntrack take another
 * packet for the first. So it is never NAT that protects: the two gates look at every SYN, after
 * NAT, and let none pass that does not lead to the agent or come from it.
 */
import { HBONE_PORT, OUT_PORT } from "../layout.ts";

/** Istio's port for connections from outside the mesh. */
export const IN_PORT = 15_006;

/** On packets of the agent's own sockets. Istio's number too. */
export const AGENT_MARK = 0x539;
/** On connections of the agent to the application, and on the packets that answer it. */
const REPLY_MARK = 0x111;

/** Holds one route: everything is local. Out of the way of what others number by hand. */
const ROUTE_TABLE = 15_001;
/** Before main (32766), as Istio's is. */
const RULE_PREFERENCE = 32_764;
/**
 * To conntrack, the connection of a client and the agent's to the application in that client's name
 * could be one and the same. In a zone of its own the second cannot be taken for the first.
 */
const ZONE = 15_001;

/** Changes when a chain's hook or priority does: nft cannot change those of a chain that exists. */
export const TABLE = "aquifer_v1";

const SYN = "tcp flags & (fin | syn | rst | ack) == syn";
const TO_SELF = "fib daddr type local";
const FROM_AGENT = `meta mark ${AGENT_MARK}`;

/**
 * The whole table, to be written by one `nft -f`: the kernel swaps old rules for new ones at once.
 *
 * @param isBlocked  the pod's own connections are refused instead of captured
 */
export function captureRules(isBlocked: boolean): string {
  return `table inet ${TABLE}
flush table inet ${TABLE}
table inet ${TABLE} {
  chain zone_of_agent {
    type filter hook output priority raw
    meta l4proto tcp ${FROM_AGENT} ${TO_SELF} ct original zone set ${ZONE}
  }
  chain replies_to_agent {
    type route hook output priority mangle
    meta l4proto tcp ${FROM_AGENT} ${TO_SELF} ct mark set ${REPLY_MARK}
    ct direction reply ct mark ${REPLY_MARK} meta mark set ${REPLY_MARK}
  }
  chain leave {
    type nat hook output priority -100
    ${isBlocked ? "# blocked: leave_gate refuses" : leaveRule()}
  }
  chain arrive {
    type nat hook prerouting priority dstnat
    iifname != "lo" ${TO_SELF} ${SYN} tcp dport != ${HBONE_PORT} redirect to :${IN_PORT}
  }
  chain leave_gate {
    type filter hook output priority filter
    ${SYN} meta mark != ${AGENT_MARK} fib daddr type != local reject with tcp reset
  }
  chain arrive_gate {
    type filter hook input priority filter
    iifname != "lo" ${SYN} tcp dport != { ${IN_PORT}, ${HBONE_PORT} } reject with tcp reset
  }
}
`;
}

function leaveRule(): string {
  return `${SYN} meta mark != ${AGENT_MARK} fib daddr type != local redirect to :${OUT_PORT}`;
}

/** Succeeds whether the table exists or not. */
export function removalRules(): string {
  return `table inet ${TABLE}\ndelete table inet ${TABLE}\n`;
}

/** Arguments of `ip`: the route that takes a reply back to the agent, whomever it is sent to. */
export function replyRoute(family: "ipv4" | "ipv6"): readonly string[] {
  const everything = family === "ipv4" ? "0.0.0.0/0" : "::/0";
  return [flagOf(family), "route", "replace", "local", everything, "dev", "lo", ...TABLE_OF_ROUTE];
}

export function replyRule(family: "ipv4" | "ipv6", verb: "add" | "del"): readonly string[] {
  const which = ["fwmark", String(REPLY_MARK), "lookup", String(ROUTE_TABLE)];
  return [flagOf(family), "rule", verb, "pref", String(RULE_PREFERENCE), ...which];
}

export function replyRouteRemoval(family: "ipv4" | "ipv6"): readonly string[] {
  return [flagOf(family), "route", "flush", ...TABLE_OF_ROUTE];
}

const TABLE_OF_ROUTE = ["table", String(ROUTE_TABLE)] as const;

function flagOf(family: "ipv4" | "ipv6"): string {
  return family === "ipv4" ? "-4" : "-6";
}
