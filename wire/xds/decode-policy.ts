/**
 * L4 policies from the wire.
 *
 * Whatever is not understood here is refused, unknown fields and extensions included. To skip a
 * value of a positive list would leave "no restriction", and one of a `not_` list "no exception":
 * either is a hole that nobody is told about.
 */
import { fromBinary } from "@bufbuild/protobuf";
import { blockOf, type IpBlock, isIpv4 } from "#core/ip.ts";
import type {
  Clause,
  Match,
  Policy,
  Rule,
  ServiceAccountMatch,
  StringMatch,
} from "#core/policy/policy.ts";
import { policyKeyOf } from "#core/service/workload.ts";
import type * as wire from "#wire/gen/authorization_pb.js";
import { AuthorizationSchema } from "#wire/gen/authorization_pb.js";
import { blockLength, parseMessage } from "./decode.ts";
import { decoding, each, ipAddress, nonEmpty, parsed, portOrZero, refuse, word } from "./field.ts";
import { POLICY_ACTION, POLICY_SCOPE } from "./vocabulary.ts";

/**
 * @param name  of the resource, for the message
 * @throws MeshError `RESOURCE_INVALID`
 */
export function decodeAuthorization(name: string, bytes: Uint8Array): Policy {
  return decoding(`policy "${name}"`, () =>
    readPolicy(parseMessage(() => fromBinary(AuthorizationSchema, bytes))),
  );
}

/** @throws MeshError `RESOURCE_INVALID` */
export function decodePolicy(message: wire.Authorization): Policy {
  return decoding(`policy "${message.namespace}/${message.name}"`, () => readPolicy(message));
}

/**
 * What to enforce in place of a policy that is not understood and of which no earlier version is
 * known: a deny that denies everything, or an allow that allows nothing. It has the place of the
 * refused one, and so touches nobody else.
 *
 * @returns undefined where not even that place is legible
 */
export function standInFor(bytes: Uint8Array): Policy | undefined {
  try {
    const message = fromBinary(AuthorizationSchema, bytes);
    const refused = readPolicy({ ...message, rules: [], extensions: [], $unknown: undefined });
    return refused.action === "allow" ? refused : { ...refused, rules: [MATCHES_EVERYTHING] };
  } catch {
    // It was refused for good reasons already, and they were reported; this is only the attempt to
    // do better than leaving it out.
    return undefined;
  }
}

/** A rule holds where all of its clauses hold, and this has none. */
const MATCHES_EVERYTHING: Rule = [];

function readPolicy(message: wire.Authorization): Policy {
  refuseUnknown("message", message);
  refuseExtensions(message.extensions);
  const { name, namespace, dryRun } = message;
  const scope = word("scope", POLICY_SCOPE, message.scope);
  if (namespace.includes("/")) refuse("namespace", `"${namespace}" has a slash`);
  if (scope !== "global") nonEmpty("namespace", namespace);
  return {
    key: policyKeyOf(namespace, nonEmpty("name", name)),
    name,
    namespace,
    scope,
    action: word("action", POLICY_ACTION, message.action),
    dryRun,
    rules: each("rules", message.rules, readRule),
  };
}

function readRule(message: wire.Rule): Rule {
  refuseUnknown("", message);
  return each("clauses", message.clauses, readClause);
}

function readClause(message: wire.Clause): Clause {
  refuseUnknown("", message);
  return each("matches", message.matches, readMatch);
}

function readMatch(message: wire.Match): Match {
  refuseUnknown("", message);
  refuseExtensions(message.extensions);
  return {
    namespaces: each("namespaces", message.namespaces, readString),
    notNamespaces: each("not_namespaces", message.notNamespaces, readString),
    principals: each("principals", message.principals, readString),
    notPrincipals: each("not_principals", message.notPrincipals, readString),
    serviceAccounts: each("service_accounts", message.serviceAccounts, readAccount),
    notServiceAccounts: each("not_service_accounts", message.notServiceAccounts, readAccount),
    sourceIps: each("source_ips", message.sourceIps, readBlock),
    notSourceIps: each("not_source_ips", message.notSourceIps, readBlock),
    destinationIps: each("destination_ips", message.destinationIps, readBlock),
    notDestinationIps: each("not_destination_ips", message.notDestinationIps, readBlock),
    destinationPorts: each("destination_ports", message.destinationPorts, readPort),
    notDestinationPorts: each("not_destination_ports", message.notDestinationPorts, readPort),
  };
}

function readString(message: wire.StringMatch): StringMatch {
  refuseUnknown("", message);
  const { matchType } = message;
  switch (matchType.case) {
    case "exact":
    case "prefix":
    case "suffix":
      return { kind: matchType.case, value: matchType.value };
    case "presence":
      return { kind: "presence" };
    case undefined:
      return refuse("match_type", "is missing");
  }
}

function readAccount(message: wire.ServiceAccountMatch): ServiceAccountMatch {
  refuseUnknown("", message);
  const { namespace, serviceAccount } = message;
  return {
    namespace: nonEmpty("namespace", namespace),
    serviceAccount: nonEmpty("serviceAccount", serviceAccount),
  };
}

// Bits behind the prefix are cleared: istiod sends a block as its user wrote it.
function readBlock(message: wire.Address): IpBlock {
  refuseUnknown("", message);
  const ip = ipAddress("address", message.address);
  const length = blockLength(message.address, message.length, isIpv4(ip) ? 32 : 128);
  return parsed("length", () => blockOf(ip, length));
}

function readPort(value: number): number {
  return portOrZero("", value);
}

interface WithUnknown {
  readonly $unknown?: readonly { readonly no: number }[] | undefined;
}

function refuseUnknown(field: string, { $unknown }: WithUnknown): void {
  const [first] = $unknown ?? [];
  if (first) refuse(field, `has field ${first.no}, whose meaning is not known`);
}

function refuseExtensions(extensions: readonly { readonly name: string }[]): void {
  const [first] = extensions;
  if (first) refuse("extensions", `has "${first.name}", whose meaning is not known`);
}
