import type { IpAddress, IpBlock } from "../ip.ts";
import type { PolicyKey } from "../service/workload.ts";
import type { SpiffeId } from "../spiffe-id.ts";

/** A question about a text. `presence` is true of any text but the empty one. */
export type StringMatch =
  | { readonly kind: "exact"; readonly value: string }
  | { readonly kind: "prefix"; readonly value: string }
  | { readonly kind: "suffix"; readonly value: string }
  | { readonly kind: "presence" };

export interface ServiceAccountMatch {
  readonly namespace: string;
  readonly serviceAccount: string;
}

/**
 * What a connection has to be like. All fields that are not empty must hold; one of the values of a
 * field is enough; none of the values of a `not…` field may hold.
 */
export interface Match {
  readonly namespaces: readonly StringMatch[];
  readonly notNamespaces: readonly StringMatch[];
  /** Compared with the identity without its `spiffe://`. */
  readonly principals: readonly StringMatch[];
  readonly notPrincipals: readonly StringMatch[];
  readonly serviceAccounts: readonly ServiceAccountMatch[];
  readonly notServiceAccounts: readonly ServiceAccountMatch[];
  readonly sourceIps: readonly IpBlock[];
  readonly notSourceIps: readonly IpBlock[];
  readonly destinationIps: readonly IpBlock[];
  readonly notDestinationIps: readonly IpBlock[];
  readonly destinationPorts: readonly number[];
  readonly notDestinationPorts: readonly number[];
}

/** One of the matches has to hold. */
export type Clause = readonly Match[];

/** All of the clauses have to hold. */
export type Rule = readonly Clause[];

/** An L4 authorization policy (`istio.security.Authorization`). */
export interface Policy {
  readonly key: PolicyKey;
  readonly name: string;
  readonly namespace: string;
  /**
   * `global` holds for every workload, `namespace` for those of its own, `workload` where named.
   */
  readonly scope: "global" | "namespace" | "workload";
  readonly action: "allow" | "deny";
  /** Evaluated and logged, never enforced. */
  readonly dryRun: boolean;
  /** One of the rules has to hold. */
  readonly rules: readonly Rule[];
}

/** What a connection is known by once its handshake is over. */
export interface Connection {
  /** Absent where the peer spoke plaintext: it has then no identity, not an empty one. */
  readonly sourceIdentity: SpiffeId | undefined;
  readonly sourceIp: IpAddress;
  /** The workload's own address and port, not those of a service. */
  readonly destinationIp: IpAddress;
  readonly destinationPort: number;
}

/** An answer that explains itself: `because` goes to the access log. */
export type Decision =
  | { readonly verdict: "allow"; readonly because: "noAllowPolicies" }
  | { readonly verdict: "allow"; readonly because: "allowed"; readonly by: PolicyKey }
  | { readonly verdict: "deny"; readonly because: "denied"; readonly by: PolicyKey }
  /** None of these, which are all the allow policies, matches. */
  | {
      readonly verdict: "deny";
      readonly because: "notAllowed";
      readonly among: readonly PolicyKey[];
    }
  | { readonly verdict: "deny"; readonly because: "policyUnknown"; readonly by: PolicyKey };

/** A `Match` with nothing in it, to be spread into the one that is meant. */
export const EMPTY_MATCH: Match = {
  namespaces: [],
  notNamespaces: [],
  principals: [],
  notPrincipals: [],
  serviceAccounts: [],
  notServiceAccounts: [],
  sourceIps: [],
  notSourceIps: [],
  destinationIps: [],
  notDestinationIps: [],
  destinationPorts: [],
  notDestinationPorts: [],
};
