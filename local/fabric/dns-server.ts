/** The cluster DNS, over UDP and TCP. */
import { createSocket, type RemoteInfo, type Socket as UdpSocket } from "node:dgram";
import { once } from "node:events";
import { createServer, type Server, type Socket } from "node:net";
import { decode, encode, type Packet, TRUNCATED_RESPONSE } from "dns-packet";
import { type IpAddress, isIpv4 } from "#core/ip.ts";
import { answer } from "../dns/answer.ts";
import type { Zone } from "../dns/zone.ts";

/** The most that fits into one datagram unless the query says otherwise (RFC 1035, 2.3.4). */
const DATAGRAM_BYTES = 512;
/** The most that a query may ask for: more would only be cut up on the way. */
const DATAGRAM_BYTES_MAX = 4_096;
/** Of a query over TCP: names have 255 bytes, so that this is plenty. */
const QUERY_BYTES_MAX = 4_096;
const IDLE_MS = 10_000;
/** Of answers that a client leaves unread while it goes on asking. */
const UNREAD_BYTES_MAX = 256 * 1024;

export class DnsServer {
  #zone: Zone = {};
  readonly #open: (UdpSocket | Server)[] = [];

  set zone(zone: Zone) {
    this.#zone = zone;
  }

  async listen(addresses: readonly IpAddress[], port: number): Promise<void> {
    for (const address of addresses) {
      const udp = createSocket(isIpv4(address) ? "udp4" : "udp6");
      udp.on("message", (message, from) => this.#answerDatagram(udp, message, from));
      udp.on("error", () => undefined); // an answer is lost, as datagrams are
      udp.bind(port, address);
      const tcp = createServer((socket) => this.#serve(socket));
      tcp.listen(port, address);
      await Promise.all([once(udp, "listening"), once(tcp, "listening")]);
      this.#open.push(udp, tcp);
    }
  }

  close(): void {
    for (const each of this.#open) each.close();
  }

  #answerDatagram(udp: UdpSocket, message: Buffer, from: RemoteInfo): void {
    const response = this.#answer(message);
    if (response === undefined || from.port === 0) return; // nobody can be answered at port 0
    const { whole, cut, bytesMax } = response;
    udp.send(whole.length <= bytesMax ? whole : cut, from.port, from.address);
  }

  /** One query after the other, each behind its length (RFC 1035, 4.2.2). */
  #serve(socket: Socket): void {
    let pending: Buffer = Buffer.alloc(0);
    socket.setTimeout(IDLE_MS, () => socket.destroy());
    socket.on("error", () => socket.destroy());
    socket.on("data", (chunk: Buffer) => {
      pending = Buffer.concat([pending, chunk]);
      while (pending.length >= 2 && pending.length >= 2 + pending.readUInt16BE(0)) {
        const end = 2 + pending.readUInt16BE(0);
        const response = this.#answer(pending.subarray(2, end));
        pending = pending.subarray(end);
        if (response === undefined) {
          socket.destroy();
          return;
        }
        const length = Buffer.alloc(2);
        length.writeUInt16BE(response.whole.length);
        socket.write(Buffer.concat([length, response.whole]));
      }
      const isTooMuch =
        pending.length > QUERY_BYTES_MAX || socket.writableLength > UNREAD_BYTES_MAX;
      if (isTooMuch) socket.destroy();
    });
  }

  /** undefined for what is no query: there is nobody to answer. */
  #answer(message: Buffer): Response | undefined {
    try {
      const query = decode(message);
      if (query.type !== "query") return undefined;
      const option = query.additionals?.find(({ type }) => type === "OPT");
      const offered =
        option !== undefined && "udpPayloadSize" in option ? option.udpPayloadSize : 0;
      const bytesMax = Math.min(DATAGRAM_BYTES_MAX, Math.max(DATAGRAM_BYTES, offered ?? 0));
      const packet = answer(this.#zone, query, Math.random());
      return { whole: encode(packet), cut: encode(truncated(packet)), bytesMax };
    } catch {
      return undefined; // garbage: answering it would help whoever sends garbage
    }
  }
}

interface Response {
  readonly whole: Buffer;
  /** For a datagram that the whole does not fit into. */
  readonly cut: Buffer;
  readonly bytesMax: number;
}

/** Tells the client to come back over TCP. */
function truncated(packet: Packet): Packet {
  return { ...packet, flags: (packet.flags ?? 0) | TRUNCATED_RESPONSE, answers: [] };
}
