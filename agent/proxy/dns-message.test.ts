import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { type Answer, decode, encode, type Packet } from "dns-packet";
import fc from "fast-check";
import {
  answers,
  Deframer,
  type DnsQuery,
  encodeWithin,
  framed,
  isEchoable,
  readQuery,
  respond,
} from "./dns-message.ts";

const QUESTION = { type: "A", name: "web.shop.svc.cluster.local" } as const;

function queryBytes(changes: Packet = {}): Buffer {
  return encode({ type: "query", id: 7, flags: 0x100, questions: [QUESTION], ...changes });
}

function edns(udpPayloadSize: number): Answer {
  const zero = { flags: 0, options: [], extendedRcode: 0, ednsVersion: 0, flag_do: false };
  return { type: "OPT", name: ".", udpPayloadSize, ...zero };
}

function read(bytes: Buffer): DnsQuery {
  const reading = readQuery(bytes);
  return reading.kind === "query" ? reading.query : assert.fail(reading.kind);
}

function refusal(bytes: Buffer): Buffer {
  const reading = readQuery(bytes);
  return reading.kind === "refused" ? reading.response : assert.fail(reading.kind);
}

const addresses = (count: number) =>
  Array.from({ length: count }, (_, at): Answer => {
    return { type: "A", name: QUESTION.name, ttl: 30, data: `10.0.${at >> 8}.${at & 255}` };
  });

describe("readQuery()", () => {
  it("reads the question, and how much the client takes", () => {
    const { question, datagramBytesMax } = read(queryBytes());
    assert.deepEqual(
      [question.name, question.type, datagramBytesMax],
      [QUESTION.name, QUESTION.type, 512],
    );
    const sizes = [1, 511, 1232, 65_535].map((size) => {
      return read(queryBytes({ additionals: [edns(size)] })).datagramBytesMax;
    });
    assert.deepEqual(sizes, [512, 512, 1232, 4096]);
  });

  it("answers other operations with NOTIMP, and keeps the number", () => {
    for (const opcode of [1, 2, 4, 5, 15]) {
      const response = refusal(queryBytes({ flags: (opcode << 11) | 0x100 }));
      const { id, flags = 0 } = decode(response);
      assert.deepEqual(
        [id, flags & 0xf, (flags >> 11) & 0xf, flags & 0x100],
        [7, 4, opcode, 0x100],
      );
    }
  });

  it("answers what is malformed, or asks not exactly one thing, with FORMERR", () => {
    const cut = queryBytes().subarray(0, 20);
    const none = queryBytes({ questions: [] });
    const two = queryBytes({ questions: [QUESTION, QUESTION] });
    const loop = Buffer.concat([queryBytes().subarray(0, 12), Buffer.from([0xc0, 12, 0, 1, 0, 1])]);
    for (const bytes of [cut, none, two, loop]) {
      assert.equal((decode(refusal(bytes)).flags ?? 0) & 0xf, 1);
    }
  });

  it("is silent to responses, lest two servers talk to each other, and to what is too short", () => {
    assert.equal(readQuery(encode({ type: "response", id: 7 })).kind, "noQuery");
    for (let length = 0; length < 12; length++) {
      assert.equal(readQuery(queryBytes().subarray(0, length)).kind, "noQuery");
    }
  });

  it("survives whatever arrives", () => {
    const damaged = fc.array(fc.tuple(fc.nat(60), fc.nat(255)), { maxLength: 8 }).map((changes) => {
      const bytes = queryBytes({ additionals: [edns(1232)] });
      for (const [at, value] of changes) bytes[at % bytes.length] = value;
      return bytes;
    });
    const noise = fc.uint8Array({ maxLength: 600 }).map((bytes) => Buffer.from(bytes));
    fc.assert(
      fc.property(fc.oneof(damaged, noise), (bytes) => {
        const reading = readQuery(bytes);
        if (reading.kind === "refused") assert.ok(answers(reading.response, bytes));
        if (reading.kind !== "query") return;
        isEchoable(reading.query);
        const response = encodeWithin(respond(reading.query, addresses(40)), 512);
        assert.ok(answers(response, bytes));
      }),
      { numRuns: 2_000 },
    );
  });
});

describe("isEchoable()", () => {
  it("holds for names in any case, and not for those that the text form cannot tell apart", () => {
    assert.ok(isEchoable(read(queryBytes({ questions: [{ type: "A", name: "WeB.ShOp" }] }))));
    const bytes = queryBytes({ questions: [{ type: "A", name: "a.b" }] });
    bytes.set([3, 0x61, 0x2e, 0x62], 12); // one label "a.b"
    assert.equal(read(bytes).question.name, "a.b");
    assert.ok(!isEchoable(read(bytes)));
    bytes.set([3, 0x61, 0xff, 0x62], 12);
    assert.ok(!isEchoable(read(bytes)));
  });
});

describe("respond()", () => {
  it("repeats number, question and wish, and speaks EDNS with whoever does", () => {
    const plain = decode(encode(respond(read(queryBytes()), addresses(1))));
    assert.deepEqual(
      [plain.id, plain.flag_aa, plain.flag_ra, plain.flag_rd],
      [7, true, true, true],
    );
    assert.equal(plain.questions?.[0]?.name, QUESTION.name);
    assert.deepEqual(plain.additionals, []);
    const extended = respond(read(queryBytes({ additionals: [edns(1232)] })), []);
    assert.equal(decode(encode(extended)).additionals?.[0]?.type, "OPT");
  });
});

describe("encodeWithin()", () => {
  const packet = respond(read(queryBytes({ additionals: [edns(512)] })), addresses(100));

  it("cuts what is too long, keeps what fits, and says so", () => {
    const bytes = encodeWithin(packet, 512);
    const cut = decode(bytes);
    assert.ok(bytes.length <= 512 && bytes.length > 400);
    assert.deepEqual([cut.flag_tc, cut.additionals?.length], [true, 1]);
    assert.deepEqual(cut.answers?.at(0)?.name, QUESTION.name);
  });

  it("leaves alone what fits", () => {
    const whole = decode(encodeWithin(packet, 65_535));
    assert.deepEqual([whole.flag_tc, whole.answers?.length], [false, 100]);
  });
});

describe("Deframer", () => {
  it("finds messages however the stream is cut", () => {
    const messages = fc.array(fc.uint8Array({ maxLength: 40 }), { maxLength: 6 });
    fc.assert(
      fc.property(messages, fc.integer({ min: 1, max: 30 }), (sent, size) => {
        const stream = Buffer.concat(sent.map((message) => framed(message)));
        const deframer = new Deframer();
        const found: Buffer[] = [];
        for (let at = 0; at < stream.length; at += size) {
          found.push(...deframer.push(stream.subarray(at, at + size)));
        }
        assert.deepEqual(
          found.map(String),
          sent.map((bytes) => String(Buffer.from(bytes))),
        );
      }),
    );
  });
});
