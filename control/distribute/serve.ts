/** Discovery and certificates on one port: everything that control offers to the nodes. */
import { promisify } from "node:util";
import { Server, type ServerCredentials } from "@grpc/grpc-js";
import type { Clock } from "#core/clock.ts";
import { MeshError, reasonOf } from "#core/errors.ts";
import { formatSocketAddress, parseIp, type SocketAddress } from "#core/ip.ts";
import { addCertificateService } from "#wire/ca/server.ts";
import { CallerGate } from "#wire/xds/caller-gate.ts";
import { MESSAGE_BYTES_MAX } from "#wire/xds/delta-method.ts";
import { DiscoveryServer } from "#wire/xds/server.ts";
import { issueCertificate } from "../authority/issue.ts";
import { openAuthority } from "../authority/root.ts";
import { ServerCertificate } from "../authority/server-certificate.ts";
import { openTokenAuthenticator } from "../authority/token.ts";
import type { PlacementSource, SnapshotSource } from "../index/types.ts";
import { SnapshotCatalog } from "./catalog.ts";
import type { ServeEvent } from "./events.ts";
import { startPushLoop } from "./push-loop.ts";

export interface DiscoveryAndCaOptions {
  /** Where to listen; `::` serves both families, port 0 lets the kernel choose. */
  readonly address: SocketAddress;
  /** Holds the CA's files and the key of node tokens; made with mode 0700 where it is missing. */
  readonly stateDirectory: string;
  /** DNS names and addresses for the server's certificate, besides those it always has. */
  readonly serverNames: readonly string[];
  readonly trustDomain: string;
  /** Complete from the start: a node that comes back forgets what is not in it. */
  readonly snapshots: SnapshotSource;
  readonly placement: PlacementSource;
  readonly clock: Clock;
  /** For logs and metrics; `describeServeEvent()` puts an event into words. Must not throw. */
  readonly onEvent: (event: ServeEvent) => void;
}

export interface DiscoveryAndCa {
  /** Where it listens, with the port that the kernel chose. */
  readonly address: SocketAddress;
  /** The nodes that are subscribed, and whether each has all there is: it said so. */
  nodes(): ReadonlyMap<string, boolean>;
  /** Ends all streams (clients come back on their own), then the listener. */
  close(): Promise<void>;
}

const SERVER_OPTIONS = {
  // Requests name what a node has already: of the largest mesh that is about 10 MiB. The gate sees
  // to it that only nodes can fill our memory so.
  "grpc.max_receive_message_length": 32 * 1024 * 1024,
  "grpc.max_send_message_length": MESSAGE_BYTES_MAX,
  // A node that is gone without a word is found out after 30 s and 10 s more. Nodes ping as often
  // from their side, which grpc-js answers however often it happens.
  "grpc.keepalive_time_ms": 30_000,
  "grpc.keepalive_timeout_ms": 10_000,
  // One discovery stream, and the certificates of a node's pods at its start.
  "grpc.max_concurrent_streams": 100,
  "grpc.enable_channelz": 0,
} as const;

/** How long clients may take to let go of their connections at the end. */
const CLOSE_LIMIT_MS = 2_000;

/**
 * Serves until `close()`.
 *
 * @throws MeshError `SETTINGS_INVALID` where the CA's files cannot be used, or the address is taken
 */
export async function startDiscoveryAndCa(options: DiscoveryAndCaOptions): Promise<DiscoveryAndCa> {
  const { stateDirectory, trustDomain, snapshots, placement, clock, onEvent } = options;
  const authority = await openAuthority({ directory: stateDirectory, trustDomain, clock });
  const gate = new CallerGate(await openTokenAuthenticator(stateDirectory, clock), onEvent);
  const catalog = new SnapshotCatalog(onEvent);
  catalog.update(snapshots.current());
  const discovery = new DiscoveryServer({ catalog: () => catalog.catalog, gate, onEvent });
  const rules = { authority, trustDomain, placement, clock };
  const server = new Server({ ...SERVER_OPTIONS, interceptors: [gate.interceptor] });
  discovery.addTo(server);
  addCertificateService(server, {
    gate,
    sign: (request) => issueCertificate(request, rules),
    onEvent,
  });
  const certificate = await ServerCertificate.issue({
    authority,
    names: options.serverNames,
    clock,
    random: Math.random,
    onEvent,
  });
  // From here on no change is missed, also none that comes while the socket is being opened.
  let pushed = snapshots.current();
  const stopPushing = startPushLoop(snapshots, () => {
    pushed = snapshots.current();
    discovery.push(catalog.update(pushed));
  });
  const stop = () => {
    stopPushing();
    certificate.close();
    discovery.close();
  };
  try {
    const address = await listen(server, options.address, certificate.credentials);
    return {
      address,
      nodes: () => {
        const isPushed = pushed === snapshots.current();
        return new Map([...discovery.nodes].map(([node, has]) => [node, has && isPushed]));
      },
      close: async () => {
        stop();
        await shutDown(server);
      },
    };
  } catch (error) {
    stop();
    throw error;
  }
}

const ANY_IPV6 = parseIp("::");
const ANY_IPV4 = parseIp("0.0.0.0");

async function listen(server: Server, address: SocketAddress, credentials: ServerCredentials) {
  const bind = async (at: SocketAddress): Promise<SocketAddress> => {
    const bound = promisify(server.bindAsync.bind(server))(formatSocketAddress(at), credentials);
    return { ip: at.ip, port: await bound };
  };
  try {
    return await bind(address);
  } catch (error) {
    // A host without IPv6 has no "::" either.
    const noIpv6 = /EAFNOSUPPORT|EADDRNOTAVAIL/.test(reasonOf(error));
    if (address.ip === ANY_IPV6 && noIpv6) return await bind({ ...address, ip: ANY_IPV4 });
    const where = formatSocketAddress(address);
    throw new MeshError("SETTINGS_INVALID", `Cannot listen on ${where}: ${reasonOf(error)}`);
  }
}

async function shutDown(server: Server): Promise<void> {
  const limit = setTimeout(() => server.forceShutdown(), CLOSE_LIMIT_MS);
  await promisify(server.tryShutdown.bind(server))();
  clearTimeout(limit);
}
