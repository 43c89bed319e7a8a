/** Who is at the other end of a call to the control server. */

export interface Caller {
  readonly kind: "node";
  readonly node: string;
}

/** What a call shows of itself. */
export interface Credentials {
  /** From `authorization: Bearer …`. */
  readonly bearerToken: string | undefined;
  /** From `clusterid`. */
  readonly clusterId: string | undefined;
}

export type Authentication =
  | { readonly kind: "accepted"; readonly caller: Caller }
  /** Ends the call with UNAUTHENTICATED and this reason. */
  | { readonly kind: "refused"; readonly reason: string };

export type Authenticate = (credentials: Credentials) => Promise<Authentication>;

/** A caller without a valid token, or one that claims to be somebody else. */
export interface CallerRefusedEvent {
  readonly kind: "callerRefused";
  /** Address and port. */
  readonly peer: string;
  readonly reason: string;
}
