/**
 * Answers the DNS queries of one pod, over UDP and TCP, from sockets in its network namespace.
 *
 * What the mesh knows is answered here; everything else goes to the nameserver that the pod asked
 * (docs/decisions/0011-dns.md).
 */
import { createSocket, type RemoteInfo, type Socket as UdpSocket } from "node:dgram";
import { createServer, type Server, type Socket } from "node:net";
import { type IpAddress, isIpv4, parseIp, type SocketAddress } from "#core/ip.ts";
import type { Workload } from "#core/service/workload.ts";
import type { Logger } from "../log.ts";
import { type Forwarder, forwardOverTcp, forwardOverUdp } from "./dns-forward.ts";
import {
  Deframer,
  type DnsQuery,
  encodeWithin,
  failureOf,
  framed,
  readQuery,
} from "./dns-message.ts";
import { answerFromMesh, type NameContext } from "./dns-names.ts";

export interface DnsLabels {
  readonly queryType: string;
  readonly protocol: "udp" | "tcp";
  /** Undefined until discovery has named it. */
  readonly client: Pick<Workload, "canonicalName" | "canonicalRevision"> | undefined;
}

/** For metrics. */
export interface DnsEvents {
  request(labels: DnsLabels): void;
  upstreamRequest(labels: DnsLabels, isAnswered: boolean, durationMs: number): void;
}

export interface DnsServerOptions {
  readonly forwarder: Forwarder;
  readonly events: DnsEvents;
  /** Lets no other process bind the address of a socket: it would answer in our place. */
  readonly claimAddress: (fd: number) => void;
  readonly log: Logger;
  /** Resolves with undefined where discovery does not name the pod in time. */
  readonly client: () => Promise<Workload | undefined>;
  /** What its names mean. */
  readonly names: Omit<NameContext, "client">;
}

type Protocol = DnsLabels["protocol"];

/** A resolver has a handful under way; each holds a socket and some KiB for up to 5 s. */
const IN_FLIGHT_MAX = 256;

/** Connections that a pod may hold open to its nameserver at a time. */
const CONNECTIONS_MAX = 64;
/** A connection may be kept for the next query; RFC 7766, 6.2.3 wants a few seconds. */
const IDLE_MS = 10_000;
/** Of a query over TCP: a name has 255 bytes at most, options a little more. */
const QUERY_BYTES_MAX = 4_096;
/** Answers that a client does not read (RFC 7766 has no number): a few of the longest. */
const UNREAD_BYTES_MAX = 256 * 1024;

export class DnsServer {
  readonly #options: DnsServerOptions;
  readonly #open: (UdpSocket | Server)[] = [];
  readonly #connections = new Set<Socket>();
  #inFlight = 0;
  #isClosed = false;

  constructor(options: DnsServerOptions) {
    this.#options = options;
  }

  /**
   * @param fd  a bound UDP socket, which the server owns from now on
   * @param upstream  the nameserver that whoever asks here wanted to ask
   * @returns the port
   */
  serveUdp(fd: number, ip: IpAddress, upstream: () => SocketAddress | undefined): number {
    const socket = createSocket(isIpv4(ip) ? "udp4" : "udp6");
    // A client that is gone is told to the sender (ECONNREFUSED); there is nothing to be done.
    socket.on("error", () => undefined);
    socket.on("message", (bytes, from) => void this.#answerDatagram(socket, bytes, from, upstream));
    this.#open.push(socket);
    socket.bind({ fd });
    this.#options.claimAddress(fd);
    return socket.address().port;
  }

  /** @param fd  a listening TCP socket, which the server owns from now on */
  serveTcp(fd: number, upstream: SocketAddress): SocketAddress {
    const server = createServer((socket) => this.#serveConnection(socket, upstream));
    server.maxConnections = CONNECTIONS_MAX;
    server.on("error", (error) => this.#options.log.error({ err: error }, "DNS listener failed"));
    server.listen({ fd });
    this.#open.push(server);
    const address = server.address();
    if (address === null || typeof address === "string") throw new TypeError("not listening");
    return { ip: parseIp(address.address), port: address.port };
  }

  close(): void {
    this.#isClosed = true;
    for (const each of this.#open) each.close();
    for (const socket of this.#connections) socket.destroy();
  }

  async #answerDatagram(
    socket: UdpSocket,
    bytes: Buffer,
    from: RemoteInfo,
    upstream: () => SocketAddress | undefined,
  ): Promise<void> {
    const response = await this.#answer(bytes, "udp", upstream);
    if (response !== undefined && !this.#isClosed) socket.send(response, from.port, from.address);
  }

  #serveConnection(socket: Socket, upstream: SocketAddress): void {
    const deframer = new Deframer();
    this.#connections.add(socket);
    socket.setTimeout(IDLE_MS, () => socket.destroy());
    socket.on("close", () => this.#connections.delete(socket));
    socket.on("error", () => socket.destroy());
    socket.on("data", (chunk: Buffer) => {
      const queries = deframer.push(chunk);
      if (deframer.pendingBytes > QUERY_BYTES_MAX) socket.destroy();
      for (const bytes of queries) {
        void this.#answer(bytes, "tcp", () => upstream).then((response) => {
          // Whoever sends something else than queries, or does not read, is not spoken to.
          if (response === undefined || socket.writableLength > UNREAD_BYTES_MAX) socket.destroy();
          else if (socket.writable) socket.write(framed(response));
        });
      }
    });
  }

  /** Never throws. @returns undefined where there is nobody to answer */
  async #answer(
    bytes: Buffer,
    protocol: Protocol,
    upstream: () => SocketAddress | undefined,
  ): Promise<Buffer | undefined> {
    const reading = readQuery(bytes);
    if (reading.kind === "noQuery") return undefined;
    if (reading.kind === "refused") return reading.response;
    const { query } = reading;
    // Others are waiting: the resolver is to try its next nameserver now, not after its time limit.
    if (this.#inFlight >= IN_FLIGHT_MAX) return failureOf(query);
    this.#inFlight++;
    try {
      return await this.#resolve(query, protocol, upstream);
    } catch (error) {
      this.#options.log.error({ err: error }, "DNS query failed");
      return failureOf(query);
    } finally {
      this.#inFlight--;
    }
  }

  async #resolve(
    query: DnsQuery,
    protocol: Protocol,
    upstream: () => SocketAddress | undefined,
  ): Promise<Buffer> {
    const { events, names } = this.#options;
    const client = await this.#options.client();
    const labels = { queryType: typeLabel(query.question.type), protocol, client };
    events.request(labels);
    if (client === undefined) return failureOf(query);
    const known = answerFromMesh(query, { ...names, client });
    if (known !== undefined) {
      return encodeWithin(known, protocol === "udp" ? query.datagramBytesMax : 65_535);
    }
    const server = upstream();
    if (server === undefined) return failureOf(query);
    return this.#forward(query, labels, server);
  }

  async #forward(query: DnsQuery, labels: DnsLabels, server: SocketAddress): Promise<Buffer> {
    const { forwarder, events, log } = this.#options;
    const sinceMs = performance.now();
    const forward = labels.protocol === "udp" ? forwardOverUdp : forwardOverTcp;
    const forwarded = await forward(forwarder, server, query.bytes);
    const durationMs = performance.now() - sinceMs;
    events.upstreamRequest(labels, forwarded.kind === "answered", durationMs);
    if (forwarded.kind === "answered") return forwarded.bytes;
    log.debug({ name: query.question.name, error: forwarded.reason }, "DNS query not answered");
    return failureOf(query);
  }
}

/** A pod may ask for any of 65,536 types: those without a name are one label. */
function typeLabel(type: string): string {
  return type.startsWith("UNKNOWN") ? "unknown" : type;
}
