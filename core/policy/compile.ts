/**
 * Turns policies into the table that the kernel looks verdicts up in.
 *
 * The table holds only what `evaluate()` would say of *every* connection that an entry covers. What
 * depends on anything the kernel does not look at (addresses, above all) becomes "agent": the agent
 * then decides, with everything it knows. So an entry may send too much to the agent, but never
 * allows or denies what `evaluate()` would not; a missing entry means "agent" too.
 *
 * The kernel tries four keys and takes the first it finds: (destination, source, port),
 * (destination, source, any), (destination, any, port), (destination, any, any).
 */
import type { PolicyKey } from "../service/workload.ts";
import { partsOfSpiffeId, type SpiffeId } from "../spiffe-id.ts";
import { matchesText } from "./evaluate.ts";
import type { Match, Policy, Rule, StringMatch } from "./policy.ts";

/** Stands for every source, or every port, in a key. No workload and no port has this number. */
export const ANY = 0;

/** Workloads that no connection can tell apart: one identity, the same policies and settings. */
export interface WorkloadClass {
  /** 1 to 2^32 - 1. */
  readonly id: number;
  readonly identity: SpiffeId;
  /** Those it is under as a destination, or undefined where the agent has to judge them all. */
  readonly policies: readonly Policy[] | undefined;
}

export type KernelVerdict = "allow" | "deny" | "agent";

export interface PolicyEntry {
  readonly destination: number;
  /** `ANY` where the source does not matter, not even one that comes later. */
  readonly source: number;
  /** Of the workload, not of a service. `ANY` for those that have no entry of their own. */
  readonly port: number;
  readonly verdict: KernelVerdict;
  /** The policy that decides, where it is one. */
  readonly by: PolicyKey | undefined;
}

export interface CompiledPolicies {
  readonly entries: readonly PolicyEntry[];
  /** Classes that got no entry because theirs did not all fit: the agent judges those. */
  readonly leftOut: readonly number[];
}

/**
 * @param classes  every class of workloads on the node, each both a source and a destination
 * @param entriesMax  what the table can hold; a class that does not fit whole is left out whole
 */
export function compilePolicies(
  classes: readonly WorkloadClass[],
  entriesMax: number,
): CompiledPolicies {
  const entries: PolicyEntry[] = [];
  const leftOut: number[] = [];
  for (const destination of classes) {
    const own = entriesFor(destination, classes);
    if (entries.length + own.length > entriesMax) leftOut.push(destination.id);
    else entries.push(...own);
  }
  return { entries, leftOut };
}

/** What the kernel finds in a table for a connection. */
export function lookUp(
  entries: ReadonlyMap<string, PolicyEntry>,
  destination: number,
  source: number,
  port: number,
): PolicyEntry | undefined {
  const keys = [
    [source, port],
    [source, ANY],
    [ANY, port],
    [ANY, ANY],
  ] as const;
  const found = keys.map(([s, p]) => entries.get(entryKey(destination, s, p)));
  return found.find((entry) => entry !== undefined);
}

/** What an entry is found by. */
export function entryKey(destination: number, source: number, port: number): string {
  return `${destination}/${source}/${port}`;
}

function entriesFor(
  { id: destination, policies }: WorkloadClass,
  sources: readonly WorkloadClass[],
): readonly PolicyEntry[] {
  if (policies === undefined) return [];
  const enforced = policies.filter((policy) => !policy.dryRun);
  const ports = [ANY, ...portsNamed(enforced)];
  const whatever = verdicts(enforced, undefined, ports);
  // Where the source decides for some port, each source has its own entries, for every port: a
  // wildcard must not answer for a port in place of the source's "agent".
  const decided = whatever.every(({ verdict }) => verdict !== "agent");
  const toEntries = (source: number, found: readonly Verdict[]) =>
    withoutRepetition(found).map((verdict) => ({ destination, source, ...verdict }));
  if (decided) return toEntries(ANY, whatever);
  return sources.flatMap(({ id, identity }) => toEntries(id, verdicts(enforced, identity, ports)));
}

interface Verdict {
  readonly port: number;
  readonly verdict: KernelVerdict;
  readonly by: PolicyKey | undefined;
}

/** One verdict for each of the ports, of which the first is `ANY`. */
function verdicts(
  policies: readonly Policy[],
  identity: SpiffeId | undefined,
  ports: readonly number[],
): readonly Verdict[] {
  return ports.map((port) => ({ port, ...decide(policies, identity, port) }));
}

/** A port that fares as any other needs no entry. */
function withoutRepetition([any, ...named]: readonly Verdict[]): readonly Verdict[] {
  if (any === undefined) return [];
  const distinct = named.filter((v) => v.verdict !== any.verdict || v.by !== any.by);
  return [any, ...distinct];
}

function portsNamed(policies: readonly Policy[]): readonly number[] {
  const matches = policies.flatMap(({ rules }) => rules.flat(2));
  const ports = matches.flatMap((m) => [...m.destinationPorts, ...m.notDestinationPorts]);
  return [...new Set(ports)].filter((port) => port !== ANY);
}

/** As in `evaluate()`, with a third answer for what depends on the unknown. */
function decide(
  policies: readonly Policy[],
  identity: SpiffeId | undefined,
  port: number,
): Omit<Verdict, "port"> {
  const judged = policies.map((policy) => ({ policy, answer: ofPolicy(policy, identity, port) }));
  const denies = judged.filter(({ policy }) => policy.action === "deny");
  const denying = denies.find(({ answer }) => answer === "yes");
  if (denying) return { verdict: "deny", by: denying.policy.key };
  if (denies.some(({ answer }) => answer === "unknown")) return { verdict: "agent", by: undefined };

  const allows = judged.filter(({ policy }) => policy.action === "allow");
  if (allows.length === 0) return { verdict: "allow", by: undefined };
  const allowing = allows.find(({ answer }) => answer === "yes");
  if (allowing) return { verdict: "allow", by: allowing.policy.key };
  const isOpen = allows.some(({ answer }) => answer === "unknown");
  return { verdict: isOpen ? "agent" : "deny", by: undefined };
}

type Answer = "yes" | "no" | "unknown";

function ofPolicy(policy: Policy, identity: SpiffeId | undefined, port: number): Answer {
  return anyOf(policy.rules.map((rule) => ofRule(rule, identity, port)));
}

function ofRule(rule: Rule, identity: SpiffeId | undefined, port: number): Answer {
  return allOf(
    rule.map((clause) =>
      clause.length === 0 ? "yes" : anyOf(clause.map((match) => ofMatch(match, identity, port))),
    ),
  );
}

function ofMatch(match: Match, identity: SpiffeId | undefined, port: number): Answer {
  const isEmpty = Object.values(match).every((values: readonly unknown[]) => values.length === 0);
  if (isEmpty) return "no"; // as evaluate() has it
  const blocks = [
    match.sourceIps,
    match.notSourceIps,
    match.destinationIps,
    match.notDestinationIps,
  ];
  return allOf([
    field(match.destinationPorts, match.notDestinationPorts, (wanted) =>
      wanted === port ? "yes" : "no",
    ),
    ...ofIdentity(match, identity),
    blocks.every((block) => block.length === 0) ? "yes" : "unknown",
  ]);
}

function ofIdentity(match: Match, identity: SpiffeId | undefined): readonly Answer[] {
  const parts = identity === undefined ? undefined : partsOfSpiffeId(identity);
  const principal = identity?.slice("spiffe://".length);
  const ofText = (text: string | undefined) => (wanted: StringMatch) => {
    if (text === undefined) return "unknown";
    return matchesText(wanted, text) ? "yes" : "no";
  };
  return [
    field(match.namespaces, match.notNamespaces, ofText(parts?.namespace)),
    field(match.principals, match.notPrincipals, ofText(principal)),
    field(match.serviceAccounts, match.notServiceAccounts, (wanted) => {
      if (parts === undefined) return "unknown";
      const isSame =
        parts.namespace === wanted.namespace && parts.serviceAccount === wanted.serviceAccount;
      return isSame ? "yes" : "no";
    }),
  ];
}

function field<Value>(
  wanted: readonly Value[],
  unwanted: readonly Value[],
  test: (value: Value) => Answer,
): Answer {
  const isWanted = wanted.length === 0 ? "yes" : anyOf(wanted.map(test));
  return allOf([isWanted, not(anyOf(unwanted.map(test)))]);
}

function anyOf(answers: readonly Answer[]): Answer {
  if (answers.includes("yes")) return "yes";
  return answers.includes("unknown") ? "unknown" : "no";
}

function allOf(answers: readonly Answer[]): Answer {
  if (answers.includes("no")) return "no";
  return answers.includes("unknown") ? "unknown" : "yes";
}

function not(answer: Answer): Answer {
  if (answer === "unknown") return "unknown";
  return answer === "yes" ? "no" : "yes";
}
