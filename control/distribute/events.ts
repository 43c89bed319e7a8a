/** Everything worth a log line or a metric that happens while control serves its nodes. */
export type ServeEvent =
  | { readonly kind: "subscribed"; readonly node: string; readonly typeUrl: string }
  | {
      readonly kind: "pushed";
      readonly node: string;
      readonly typeUrl: string;
      readonly changed: number;
      readonly removed: number;
      readonly bytes: number;
    }
  | {
      readonly kind: "rejected";
      readonly node: string;
      readonly typeUrl: string;
      /** What the node said about it. */
      readonly reason: string;
    }
  | { readonly kind: "streamEnded"; readonly node: string; readonly reason: string }
  /** A caller without a valid token, or one that claims to be another node. */
  | { readonly kind: "callerRefused"; readonly peer: string; readonly reason: string }
  | {
      readonly kind: "certificateIssued";
      readonly node: string;
      readonly identity: string;
      readonly serialNumber: string;
      readonly notAfterMs: number;
    }
  | { readonly kind: "certificateRefused"; readonly node: string; readonly reason: string }
  | { readonly kind: "serverCertificateRenewed"; readonly notAfterMs: number }
  | { readonly kind: "serverCertificateNotRenewed"; readonly reason: string };

export interface EventDescription {
  readonly level: "debug" | "info" | "warn" | "error";
  readonly message: string;
}

/** The event as a log line; the event's own fields belong beside it. */
export function describeServeEvent(_event: ServeEvent): EventDescription {
  throw new TypeError("not written yet");
}
