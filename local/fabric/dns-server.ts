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
/** Of a query over TCP: names have 255 bytes, so that this is plenty. */
const QUERY_BYTES_MAX = 4_096;
const IDLE_MS = 10_000;

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
    if (response === undefined) return;
    const whole = encode(response.packet);
    const fits = whole.length <= response.bytesMax;
    udp.send(fits ? whole : encode(truncated(response.packet)), from.port, from.address);
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
        const body = encode(response.packet);
        const length = Buffer.alloc(2);
        length.writeUInt16BE(body.length);
        socket.write(Buffer.concat([length, body]));
      }
      if (pending.length > QUERY_BYTES_MAX) socket.destroy();
    });
  }

  /** undefined for what is no query: there is nobody to answer. */
  #answer(message: Buffer): { readonly packet: Packet; readonly bytesMax: number } | undefined {
    try {
      const query = decode(message);
      if (query.type !== "query") return undefined;
      const option = query.additionals?.find(({ type }) => type === "OPT");
      const offered =
        option !== undefined && "udpPayloadSize" in option ? option.udpPayloadSize : 0;
      const bytesMax = Math.max(DATAGRAM_BYTES, offered ?? 0);
      return { packet: answer(this.#zone, query, Math.random()), bytesMax };
    } catch {
      return undefined; // garbage: answering it would help whoever sends garbage
    }
  }
}

/** Tells the client to come back over TCP. */
function truncated(packet: Packet): Packet {
  return { ...packet, flags: (packet.flags ?? 0) | TRUNCATED_RESPONSE, answers: [] };
}
