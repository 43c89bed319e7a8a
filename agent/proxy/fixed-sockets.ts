/** What differs for the proxy where capture leads to fixed ports, and changes addresses. */
import { type IpAddress, isIpv4, type SocketAddress } from "#core/ip.ts";
import type { PlainConnection } from "#wire/hbone/engine.ts";
import type { FixedSockets, ListenerRole } from "../kernel/datapath.ts";
import type { PodSocketOptions } from "./context.ts";

const LOOPBACK = { ipv4: "127.0.0.1" as IpAddress, ipv6: "::1" as IpAddress } as const;

/** Where a listener of a pod belongs: anywhere on loopback, unless capture leads elsewhere. */
export function listenerPlace(
  fixed: FixedSockets | undefined,
  role: ListenerRole,
  family: "ipv4" | "ipv6",
): SocketAddress {
  return fixed?.listenAt(role, family) ?? { ip: LOOPBACK[family], port: 0 };
}

/** How to make a socket that `markAgentSocket()` will bind to the client that it shows. */
export function unboundForClient(
  fixed: FixedSockets | undefined,
  options: PodSocketOptions,
): PodSocketOptions {
  const { family, showClient } = options;
  if (fixed === undefined || showClient === undefined) return options;
  // A tunnel over one family to an application that listens on the other: nothing to show.
  if (isIpv4(showClient.ip) !== (family === "ipv4")) return { family };
  return { family, showClient };
}

/** The connection with the end that its client dialled for its own. */
export function withDialledEnd(
  fixed: FixedSockets | undefined,
  connection: PlainConnection,
): PlainConnection {
  const local = fixed?.arrivedAt(connection.fd);
  if (local === undefined) return connection;
  const { peer, fd } = connection;
  return {
    ...{ peer, fd, local },
    connect: (upstream) => connection.connect(upstream),
    refuse: () => connection.refuse(),
  };
}
