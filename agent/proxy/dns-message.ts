/** DNS messages as they arrive and leave (RFC 1035, 4). */
import {
  type Answer,
  AUTHORITATIVE_ANSWER,
  type DecodedPacket,
  decode,
  encode,
  type Packet,
  type Question,
  RECURSION_AVAILABLE,
  RECURSION_DESIRED,
  TRUNCATED_RESPONSE,
} from "dns-packet";

/** What a response says about the query as a whole (RFC 1035, 4.1.1). */
export const RCODE = { noError: 0, formatError: 1, serverFailure: 2, notImplemented: 4 } as const;
export type Rcode = (typeof RCODE)[keyof typeof RCODE];

export interface DnsQuery {
  /** As it arrived, to be forwarded. */
  readonly bytes: Buffer;
  readonly packet: DecodedPacket;
  readonly question: Question;
  /** The longest datagram that the client takes. */
  readonly datagramBytesMax: number;
}

export type Reading =
  | { readonly kind: "query"; readonly query: DnsQuery }
  /** Cannot be served, and the client is told so. */
  | { readonly kind: "refused"; readonly response: Buffer }
  /** A response, or too short to be anything: there is nobody to answer. */
  | { readonly kind: "noQuery" };

const HEADER_BYTES = 12;
const QR = 0x8000;
const OPCODE_MASK = 0x7800;

/** What fits into one datagram unless the query says otherwise (RFC 1035, 2.3.4). */
const DATAGRAM_BYTES = 512;
/** What we take, and the most that we send: no network lies between us and the client. */
const EDNS_BYTES = 4_096;

/** Never throws, whatever it is given. */
export function readQuery(bytes: Buffer): Reading {
  if (bytes.length < HEADER_BYTES) return { kind: "noQuery" };
  const flags = bytes.readUInt16BE(2);
  if ((flags & QR) !== 0) return { kind: "noQuery" };
  const refuse = (rcode: Rcode): Reading => ({
    kind: "refused",
    response: bareResponse(bytes, rcode),
  });
  if ((flags & OPCODE_MASK) !== 0) return refuse(RCODE.notImplemented);
  const packet = decodeOrNothing(bytes);
  const [question, second] = packet?.questions ?? [];
  if (packet === undefined || question === undefined || second !== undefined) {
    return refuse(RCODE.formatError);
  }
  const option = packet.additionals?.find(({ type }) => type === "OPT");
  const offered = option !== undefined && "udpPayloadSize" in option ? option.udpPayloadSize : 0;
  const datagramBytesMax = Math.min(Math.max(DATAGRAM_BYTES, offered), EDNS_BYTES);
  return { kind: "query", query: { bytes, packet, question, datagramBytesMax } };
}

/**
 * Whether the question can be written again as it was read. One that has a dot or a byte beyond
 * ASCII within a label cannot, and the client would not know the answer for its own.
 */
export function isEchoable({ bytes, question }: DnsQuery): boolean {
  const again = encode({ type: "query", questions: [question] }).subarray(HEADER_BYTES);
  return again.equals(bytes.subarray(HEADER_BYTES, HEADER_BYTES + again.length));
}

/** A response of our own. */
export function respond(query: DnsQuery, answers: readonly Answer[]): Packet {
  const { packet, question } = query;
  const asked = packet.flags ?? 0;
  const isExtended = packet.additionals?.some(({ type }) => type === "OPT") ?? false;
  return {
    type: "response",
    ...(packet.id === undefined ? {} : { id: packet.id }),
    flags: AUTHORITATIVE_ANSWER | RECURSION_AVAILABLE | (asked & RECURSION_DESIRED),
    questions: [question],
    answers: [...answers],
    additionals: isExtended ? [EDNS] : [],
  };
}

const EDNS: Answer = {
  type: "OPT",
  name: ".",
  udpPayloadSize: EDNS_BYTES,
  flags: 0,
  options: [],
  extendedRcode: 0,
  ednsVersion: 0,
  flag_do: false,
};

/** Without the question where it could not be repeated faithfully anyway. */
export function failureOf({ bytes }: DnsQuery): Buffer {
  return bareResponse(bytes, RCODE.serverFailure);
}

/**
 * Encodes a response in at most `bytesMax` bytes: as many answers as fit, and where that is not all
 * of them the word that there are more, so that the client may ask again over TCP.
 */
export function encodeWithin(packet: Packet, bytesMax: number): Buffer {
  const whole = encode(packet);
  if (whole.length <= bytesMax) return whole;
  const flags = (packet.flags ?? 0) | TRUNCATED_RESPONSE;
  const answers = [...(packet.answers ?? [])];
  for (;;) {
    answers.pop();
    const cut = encode({ ...packet, flags, answers });
    if (cut.length <= bytesMax || answers.length === 0) return cut;
  }
}

/** Whether `response` is one to `query`, as far as both show (RFC 5452, 4.4). */
export function answers(response: Buffer, query: Buffer): boolean {
  return (
    response.length >= HEADER_BYTES &&
    (response.readUInt16BE(2) & QR) !== 0 &&
    response.readUInt16BE(0) === query.readUInt16BE(0)
  );
}

/** Over TCP each message stands behind its length (RFC 1035, 4.2.2). */
export function framed(message: Uint8Array): Buffer {
  const length = Buffer.alloc(2);
  length.writeUInt16BE(message.length);
  return Buffer.concat([length, message]);
}

/** Takes messages out of a TCP stream. */
export class Deframer {
  #pending: Buffer = Buffer.alloc(0);

  /** Of the message that is not complete. */
  get pendingBytes(): number {
    return this.#pending.length;
  }

  /** @returns the messages that `chunk` completes */
  push(chunk: Buffer): readonly Buffer[] {
    this.#pending = this.#pending.length === 0 ? chunk : Buffer.concat([this.#pending, chunk]);
    const messages: Buffer[] = [];
    while (this.#pending.length >= 2) {
      const end = 2 + this.#pending.readUInt16BE(0);
      if (this.#pending.length < end) break;
      messages.push(this.#pending.subarray(2, end));
      this.#pending = this.#pending.subarray(end);
    }
    return messages;
  }
}

function decodeOrNothing(bytes: Buffer): DecodedPacket | undefined {
  try {
    return decode(bytes);
  } catch {
    return undefined; // the library has no other word for "malformed"
  }
}

function bareResponse(query: Buffer, rcode: Rcode): Buffer {
  const response = Buffer.alloc(HEADER_BYTES);
  query.copy(response, 0, 0, 2);
  const kept = query.readUInt16BE(2) & (OPCODE_MASK | RECURSION_DESIRED);
  response.writeUInt16BE(QR | kept | RECURSION_AVAILABLE | rcode, 2);
  return response;
}
