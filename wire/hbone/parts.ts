/** What the parts of one engine share. */
import type { End } from "./end.ts";
import type { ConnectFailure, ConnectRequest, Relay, SessionTarget } from "./engine.ts";
import type { ReadBuffers } from "./reading.ts";
import type { HboneSettings } from "./settings.ts";

export interface EngineParts {
  readonly settings: HboneSettings;
  readonly readBuffers: ReadBuffers;
  readonly openTunnel: OpenTunnel;
  readonly addRelay: (relay: Relay) => void;
}

/** @param signal  gives the stream up; a handshake that others wait for goes on */
export type OpenTunnel = (
  target: SessionTarget,
  request: ConnectRequest,
  signal: AbortSignal,
) => Promise<Opened>;

/** The other half of a relay, or why there is none. */
export type Opened =
  | {
      readonly kind: "opened";
      readonly end: End;
      readonly responseHeaders: ReadonlyMap<string, string>;
      readonly peerUris: readonly string[];
    }
  | Failed;

export interface Failed {
  readonly kind: "failed";
  readonly failure: ConnectFailure;
}

export function failed(kind: ConnectFailure["kind"], reason: string): Failed {
  return { kind: "failed", failure: { kind, reason } };
}

/** Of a plain socket of a relay, whose two directions end on their own. */
export const RELAY_SOCKET = {
  allowHalfOpen: true,
  /** How much Node collects before it says that it has enough. */
  highWaterMark: 256 * 1024,
} as const;
