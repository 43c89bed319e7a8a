/** Discovery and certificates on one port: everything that control offers to the nodes. */
import type { Clock } from "#core/clock.ts";
import type { SocketAddress } from "#core/ip.ts";
import type { PlacementSource, SnapshotSource } from "../index/types.ts";
import type { ServeEvent } from "./events.ts";

export interface DiscoveryAndCaOptions {
  /** Where to listen; `::` serves both families, port 0 lets the kernel choose. */
  readonly address: SocketAddress;
  /** Holds the CA's files and the key of node tokens; made with mode 0700 where it is missing. */
  readonly stateDirectory: string;
  /** DNS names and addresses for the server's certificate, besides those it always has. */
  readonly serverNames: readonly string[];
  readonly trustDomain: string;
  readonly snapshots: SnapshotSource;
  readonly placement: PlacementSource;
  readonly clock: Clock;
  /** For logs and metrics; `describeServeEvent()` puts an event into words. Must not throw. */
  readonly onEvent: (event: ServeEvent) => void;
}

export interface DiscoveryAndCa {
  /** Where it listens, with the port that the kernel chose. */
  readonly address: SocketAddress;
  /** Ends all streams (clients come back on their own), then the listener. */
  close(): Promise<void>;
}

/**
 * Serves until `close()`.
 *
 * @throws MeshError `SETTINGS_INVALID` where the CA's files cannot be used, or the address is taken
 */
export async function startDiscoveryAndCa(
  _options: DiscoveryAndCaOptions,
): Promise<DiscoveryAndCa> {
  throw new TypeError("not written yet");
}
