/** One rule of an AuthorizationPolicy: who, to what, and under which conditions. */
import { type IpBlock, parseIpBlock } from "#core/ip.ts";
import {
  type Clause,
  EMPTY_MATCH,
  type Match,
  type Policy,
  type Rule,
  type ServiceAccountMatch,
  type StringMatch,
} from "#core/policy/policy.ts";
import { describeValue, type Field, type Mistake } from "./field.ts";
import type { Reading } from "./reading.ts";

type Writable = { -readonly [Name in keyof Match]: Match[Name] };
type Part = Partial<Writable>;

/** How a list of values becomes part of a match; undefined for what is known of requests only. */
type Reader = ((values: Field, isNegated: boolean, namespace: string) => Part) | undefined;

const SOURCE_FIELDS: Readonly<Record<string, Reader>> = {
  principals: principalsOf,
  namespaces: namespacesOf,
  serviceAccounts: serviceAccountsOf,
  ipBlocks: sourceIpsOf,
  remoteIpBlocks: undefined,
  requestPrincipals: undefined,
};

const OPERATION_FIELDS: Readonly<Record<string, Reader>> = {
  ports: portsOf,
  hosts: undefined,
  methods: undefined,
  paths: undefined,
};

const CONDITION_KEYS: Readonly<Record<string, Reader>> = {
  "source.ip": sourceIpsOf,
  "source.namespace": namespacesOf,
  "source.principal": principalsOf,
  "destination.ip": destinationIpsOf,
  "destination.port": portsOf,
};

/** What Istio knows besides, all of it about requests. */
const REQUEST_CONDITION =
  /^(remote\.ip|connection\.sni|request\.headers\[.+\]|request\.auth\.(principal|audiences|presenter|claims(\[[^\]]+\])+)|experimental\.envoy\.filters\..+)$/;

/** @returns undefined where the rule can hold for no connection, which is noted */
export function readRule(
  field: Field,
  action: Policy["action"],
  reading: Reading,
): Rule | undefined {
  field.only(["from", "to", "when"]);
  if (!field.isPresent) field.complain("is empty; a rule that is always true is written {}");
  const requests: Mistake[] = [];
  const clauses = [
    readEntries(field.get("from"), "source", SOURCE_FIELDS, reading, requests),
    readEntries(field.get("to"), "operation", OPERATION_FIELDS, reading, requests),
    ...field
      .get("when")
      .items()
      .map((item) => readCondition(item, reading, requests)),
  ];
  const isHopeless = action === "allow" && requests.length > 0;
  const consequence = isHopeless
    ? "the rule allows nothing"
    : "the rule denies without looking at it";
  for (const { path, reason } of requests) {
    reading.remarks.push({ path, reason: `${reason}; ${consequence}` });
  }
  return isHopeless ? undefined : clauses.filter((clause) => clause !== undefined);
}

/** @returns undefined for a clause that always holds */
function readEntries(
  field: Field,
  name: "source" | "operation",
  readers: Readonly<Record<string, Reader>>,
  reading: Reading,
  requests: Mistake[],
): Clause | undefined {
  if (!field.isPresent) return undefined;
  const items = field.items();
  if (Array.isArray(field.value) && items.length === 0) field.complain("is empty");
  const clause = items.map((item) => {
    const entry = item.only([name]).get(name).required();
    const known = Object.keys(readers);
    entry.only([...known, ...known.map(negated)]);
    const isAnyUsed = entry.entries().some(([, { isPresent }]) => isPresent);
    if (entry.isPresent && !isAnyUsed) entry.complain("is empty");
    if (name === "source") refuseMixedIdentities(entry);
    const parts = known.flatMap((key) => {
      const fields = [entry.get(key), entry.get(negated(key))] as const;
      return readValues(fields, key, readers[key], reading, requests);
    });
    return merge(parts);
  });
  // A match that asks nothing would be skipped by whoever evaluates it. Here it holds for all, and
  // so does the clause.
  return clause.some(isEmpty) ? undefined : clause;
}

function readCondition(field: Field, reading: Reading, requests: Mistake[]): Clause | undefined {
  field.only(["key", "values", "notValues"]);
  const key = field.get("key").required().string();
  if (key === undefined) return undefined;
  const fields = [field.get("values"), field.get("notValues")] as const;
  if (!fields.some(({ isPresent }) => isPresent))
    field.complain("has neither values nor notValues");
  const isKnown = Object.hasOwn(CONDITION_KEYS, key);
  if (!isKnown && !REQUEST_CONDITION.test(key)) {
    return field.get("key").complain(`${describeValue(key)} is no condition`);
  }
  const match = merge(readValues(fields, `"${key}"`, CONDITION_KEYS[key], reading, requests));
  return isEmpty(match) ? undefined : [match];
}

/** The values of a field and of its negation. */
function readValues(
  [positive, negative]: readonly [Field, Field],
  name: string,
  reader: Reader,
  { metadata, mistakes }: Reading,
  requests: Mistake[],
): readonly Part[] {
  const used = [positive, negative].filter(({ isPresent }) => isPresent);
  for (const field of used) {
    if (Array.isArray(field.value) && field.value.length === 0) field.complain("is empty");
  }
  if (reader) {
    return used.map((field) => reader(field, field === negative, metadata.namespace));
  }
  for (const { path, value } of used) {
    const texts = new Set<unknown>(Array.isArray(value) ? value.map((item) => typeof item) : []);
    if (texts.size !== 1 || !texts.has("string")) {
      mistakes.push({ path, reason: `expected a list of strings, got ${describeValue(value)}` });
    }
    requests.push({ path, reason: `${name} is known of requests only, not of connections` });
  }
  return [];
}

/** As in Istio: a service account is a namespace and a principal already. */
function refuseMixedIdentities(source: Field): void {
  const isSet = (name: string) => source.get(name).isPresent || source.get(negated(name)).isPresent;
  if (!isSet("serviceAccounts")) return;
  const other = ["principals", "namespaces"].find(isSet);
  if (other) source.get("serviceAccounts").complain(`cannot stand beside ${other}`);
}

function principalsOf(values: Field, isNegated: boolean): Part {
  const principals = readAll(values, (field) => {
    const text = field.string();
    if (text?.startsWith("spiffe://")) return field.complain('is written without "spiffe://"');
    return readStringMatch(field);
  });
  return isNegated ? { notPrincipals: principals } : { principals };
}

function namespacesOf(values: Field, isNegated: boolean): Part {
  const namespaces = readAll(values, readStringMatch);
  return isNegated ? { notNamespaces: namespaces } : { namespaces };
}

function serviceAccountsOf(values: Field, isNegated: boolean, namespace: string): Part {
  const serviceAccounts = readAll(values, (field) => readServiceAccount(field, namespace));
  return isNegated ? { notServiceAccounts: serviceAccounts } : { serviceAccounts };
}

function sourceIpsOf(values: Field, isNegated: boolean): Part {
  const sourceIps = readAll(values, readIpBlock);
  return isNegated ? { notSourceIps: sourceIps } : { sourceIps };
}

function destinationIpsOf(values: Field, isNegated: boolean): Part {
  const destinationIps = readAll(values, readIpBlock);
  return isNegated ? { notDestinationIps: destinationIps } : { destinationIps };
}

function portsOf(values: Field, isNegated: boolean): Part {
  const destinationPorts = readAll(values, readPort);
  return isNegated ? { notDestinationPorts: destinationPorts } : { destinationPorts };
}

function readAll<Value>(
  values: Field,
  read: (field: Field) => Value | undefined,
): readonly Value[] {
  return values.items().flatMap((item) => {
    if (!item.isPresent || item.value === "") item.complain("is empty");
    const value = item.isPresent && item.value !== "" ? read(item) : undefined;
    return value === undefined ? [] : [value];
  });
}

/** `*` is any text but none, `abc*` a beginning, `*abc` an end, and anything else itself. */
function readStringMatch(field: Field): StringMatch | undefined {
  const text = field.string();
  if (text === undefined) return undefined;
  if (/\s/.test(text)) return field.complain(`${describeValue(text)} has a space in it`);
  if (text === "*") return { kind: "presence" };
  const value = text.replace(/^\*|\*$/, "");
  if (value.includes("*")) {
    const reason = `${describeValue(text)} has a "*" that is neither alone, first nor last`;
    return field.complain(reason);
  }
  if (text.startsWith("*")) return { kind: "suffix", value };
  return text.endsWith("*") ? { kind: "prefix", value } : { kind: "exact", value };
}

/** `namespace/name`, or a name in the policy's own namespace. */
function readServiceAccount(field: Field, own: string): ServiceAccountMatch | undefined {
  const text = field.string();
  if (text === undefined) return undefined;
  const [first = "", second, ...rest] = text.split("/");
  const [namespace, serviceAccount] = second === undefined ? [own, first] : [first, second];
  const isName = (name: string) => /^[A-Za-z0-9._-]+$/.test(name);
  if (rest.length > 0 || !isName(namespace) || !isName(serviceAccount)) {
    return field.complain(`expected "namespace/name" or "name", got ${describeValue(text)}`);
  }
  return { namespace, serviceAccount };
}

function readIpBlock(field: Field): IpBlock | undefined {
  return field.parsed(parseIpBlock);
}

/** A port is text here, as it is in Istio's own definition. */
function readPort(field: Field): number | undefined {
  const text = field.string();
  if (text === undefined) return undefined;
  const port = Number(text);
  if (/^\d{1,5}$/.test(text) && port >= 1 && port <= 65_535) return port;
  return field.complain(`expected a port from "1" to "65535", got ${describeValue(text)}`);
}

function negated(name: string): string {
  return `not${name.charAt(0).toUpperCase()}${name.slice(1)}`;
}

function merge(parts: readonly Part[]): Match {
  return Object.assign({}, EMPTY_MATCH, ...parts);
}

function isEmpty(match: Match): boolean {
  return Object.values(match).every((values: readonly unknown[]) => values.length === 0);
}
