import { blockContains, type IpAddress, type IpBlock } from "../ip.ts";
import { partsOfSpiffeId, type SpiffeId } from "../spiffe-id.ts";
import type {
  Clause,
  Connection,
  Decision,
  Match,
  Policy,
  Rule,
  ServiceAccountMatch,
  StringMatch,
} from "./policy.ts";

/**
 * Decides whether `connection` may go ahead under `policies`, whose order does not matter:
 *
 * 1. any deny policy that matches denies;
 * 2. with no allow policy at all, everything is allowed;
 * 3. otherwise some allow policy has to match.
 *
 * Policies with `dryRun` take no part. Pure, and bounded by the number of conditions.
 *
 * @see https://istio.io/latest/docs/concepts/security/#implicit-enablement whose order this keeps
 */
export function evaluate(policies: readonly Policy[], connection: Connection): Decision {
  return decide(
    policies.filter((policy) => !policy.dryRun),
    connection,
  );
}

/**
 * What the decision would be if the policies with `dryRun` were enforced.
 *
 * @returns undefined where no policy is a dry run, so that there is nothing to tell
 */
export function evaluateDryRun(
  policies: readonly Policy[],
  connection: Connection,
): Decision | undefined {
  return policies.some((policy) => policy.dryRun) ? decide(policies, connection) : undefined;
}

function decide(policies: readonly Policy[], connection: Connection): Decision {
  const denying = policies.find((p) => p.action === "deny" && matchesPolicy(p, connection));
  if (denying) return { verdict: "deny", because: "denied", by: denying.key };

  const allows = policies.filter((p) => p.action === "allow");
  if (allows.length === 0) return { verdict: "allow", because: "noAllowPolicies" };

  const allowing = allows.find((p) => matchesPolicy(p, connection));
  return allowing
    ? { verdict: "allow", because: "allowed", by: allowing.key }
    : { verdict: "deny", because: "notAllowed", among: allows.map(({ key }) => key) };
}

/** A policy without rules matches nothing: an allow policy of that kind denies all. */
function matchesPolicy(policy: Policy, connection: Connection): boolean {
  return policy.rules.some((rule) => matchesRule(rule, connection));
}

function matchesRule(rule: Rule, connection: Connection): boolean {
  return rule.every((clause) => matchesClause(clause, connection));
}

function matchesClause(clause: Clause, connection: Connection): boolean {
  return clause.length === 0 || clause.some((match) => matches(match, connection));
}

function matches(match: Match, connection: Connection): boolean {
  // Surprising, and part of the contract: a match that asks nothing is never fulfilled.
  if (isEmpty(match)) return false;
  return matchesIdentity(match, connection.sourceIdentity) && matchesAddresses(match, connection);
}

function isEmpty(match: Match): boolean {
  return Object.values(match).every((values: readonly unknown[]) => values.length === 0);
}

/** A peer without identity fulfils no field about identity, and every negated one. */
function matchesIdentity(match: Match, identity: SpiffeId | undefined): boolean {
  const parts = identity === undefined ? undefined : partsOfSpiffeId(identity);
  const principal = identity?.slice("spiffe://".length);
  const isText = (text: string | undefined) => (wanted: StringMatch) =>
    text !== undefined && matchesText(wanted, text);
  const isAccount = (wanted: ServiceAccountMatch) =>
    parts !== undefined &&
    parts.namespace === wanted.namespace &&
    parts.serviceAccount === wanted.serviceAccount;
  return (
    holds(match.namespaces, match.notNamespaces, isText(parts?.namespace)) &&
    holds(match.principals, match.notPrincipals, isText(principal)) &&
    holds(match.serviceAccounts, match.notServiceAccounts, isAccount)
  );
}

function matchesAddresses(match: Match, connection: Connection): boolean {
  const holdsAddress = (ip: IpAddress) => (block: IpBlock) => blockContains(block, ip);
  const isPort = (port: number) => port === connection.destinationPort;
  return (
    holds(match.sourceIps, match.notSourceIps, holdsAddress(connection.sourceIp)) &&
    holds(match.destinationIps, match.notDestinationIps, holdsAddress(connection.destinationIp)) &&
    holds(match.destinationPorts, match.notDestinationPorts, isPort)
  );
}

/** An empty list of wanted values asks nothing; of the unwanted ones none may hold. */
function holds<Value>(
  wanted: readonly Value[],
  unwanted: readonly Value[],
  test: (value: Value) => boolean,
): boolean {
  return (wanted.length === 0 || wanted.some(test)) && !unwanted.some(test);
}

/** Whether `text` is what `wanted` asks for. */
export function matchesText(wanted: StringMatch, text: string): boolean {
  switch (wanted.kind) {
    case "exact":
      return text === wanted.value;
    case "prefix":
      return text.startsWith(wanted.value);
    case "suffix":
      return text.endsWith(wanted.value);
    case "presence":
      return text !== "";
  }
}
