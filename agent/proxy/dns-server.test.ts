import assert from "node:assert/strict";
import dgram from "node:dgram";
import { once } from "node:events";
import net from "node:net";
import { afterEach, describe, it } from "node:test";
import { type DecodedPacket, decode, encode, type Packet, type RecordType } from "dns-packet";
import fc from "fast-check";
import { parseIp, type SocketAddress } from "#core/ip.ts";
import { MeshIndex } from "#core/service/mesh-index.ts";
import type { Workload } from "#core/service/workload.ts";
import { FakeTimers } from "../../test/support/fake-timers.ts";
import { service, workload } from "../../test/support/mesh-builders.ts";
import { boundSocket, boundUdpSocket } from "../../test/support/sockets.ts";
import { waitFor } from "../../test/support/wait.ts";
import { Loggers, parseLogLevels } from "../log.ts";
import { Deframer, framed } from "./dns-message.ts";
import { type DnsLabels, DnsServer } from "./dns-server.ts";

const LOOPBACK = parseIp("127.0.0.1");
const KNOWN = "web.shop.svc.cluster.local";
const index = new MeshIndex();
index.apply({
  services: { changed: [service("web", "10.96.0.1", { namespace: "shop" })], removed: [] },
  workloads: { changed: [], removed: [] },
});

const undo: (() => void)[] = [];
afterEach(() => {
  for (const step of undo.splice(0)) step();
});

/** A nameserver that answers every name with 192.0.2.1, or not at all. */
async function startUpstream(answersAtAll = true) {
  const heard: string[] = [];
  const answer = (bytes: Buffer): Buffer => {
    const { id = 0, questions = [] } = decode(bytes);
    const name = questions[0]?.name ?? "";
    heard.push(name);
    const answers: Packet["answers"] = [{ type: "A", name, ttl: 1, data: "192.0.2.1" }];
    return encode({ type: "response", id, questions, answers });
  };
  const udp = dgram.createSocket("udp4");
  udp.on("message", (bytes, from) => {
    const response = answer(bytes);
    // Someone who guesses would not know the number.
    const forged = Buffer.from(response);
    forged.writeUInt16BE(forged.readUInt16BE(0) ^ 1, 0);
    udp.send(forged, from.port, from.address);
    if (answersAtAll) udp.send(response, from.port, from.address);
  });
  udp.bind(0, "127.0.0.1");
  await once(udp, "listening");
  const { port } = udp.address();
  const tcp = net.createServer((socket) => {
    const deframer = new Deframer();
    socket.on("error", () => socket.destroy());
    socket.on("data", (chunk: Buffer) => {
      for (const bytes of deframer.push(chunk)) {
        if (answersAtAll) socket.write(framed(answer(bytes)));
        else socket.destroy();
      }
    });
  });
  tcp.listen(port, "127.0.0.1");
  await once(tcp, "listening");
  undo.push(
    () => udp.close(),
    () => tcp.close(),
  );
  return { heard, address: { ip: LOOPBACK, port } };
}

interface Changes {
  readonly client?: () => Promise<Workload | undefined>;
}

function startServer(upstream: SocketAddress | undefined, { client }: Changes = {}) {
  const timers = new FakeTimers();
  const abort = new AbortController();
  const requests: string[] = [];
  const upstreamRequests: string[] = [];
  const text = ({ queryType, protocol, client: who }: DnsLabels) =>
    `${queryType} ${protocol} ${who?.canonicalName}`;
  const loggers = new Loggers(
    { format: "json", levels: parseLogLevels("off") },
    { write: () => undefined },
  );
  const server = new DnsServer({
    forwarder: {
      openUdp: () => boundUdpSocket(),
      openTcp: () => boundSocket(),
      timers,
      timeoutMs: 5_000,
      signal: abort.signal,
    },
    events: {
      request: (labels) => requests.push(text(labels)),
      upstreamRequest: (labels, isAnswered) => {
        upstreamRequests.push(`${text(labels)} ${isAnswered ? "answered" : "failed"}`);
      },
    },
    claimAddress: () => undefined,
    log: loggers.for("proxy"),
    client: client ?? (async () => workload({ name: "cart", namespace: "shop" })),
    names: { index, searchDomains: [], random: () => 0 },
  });
  const udpPort = server.serveUdp(boundUdpSocket(), LOOPBACK, () => upstream);
  const tcp = server.serveTcp(boundSocket(), upstream ?? { ip: LOOPBACK, port: 1 });
  undo.push(() => {
    abort.abort();
    server.close();
  });
  return { udpPort, tcpPort: tcp.port, timers, abort, requests, upstreamRequests };
}

function query(name: string, type: RecordType = "A", id = 7): Buffer {
  return encode({ type: "query", id, flags: 0x100, questions: [{ type, name }] });
}

function openUdp(port: number) {
  const socket = dgram.createSocket("udp4");
  const heard: DecodedPacket[] = [];
  socket.on("message", (bytes) => heard.push(decode(bytes)));
  undo.push(() => socket.close());
  return {
    heard,
    send: (bytes: Uint8Array) => socket.send(bytes, port, "127.0.0.1"),
    next: () => waitFor("an answer", () => heard.shift()),
  };
}

async function askUdp(port: number, bytes: Uint8Array): Promise<DecodedPacket> {
  const client = openUdp(port);
  client.send(bytes);
  return client.next();
}

function openTcp(port: number) {
  const socket = net.connect(port, "127.0.0.1");
  const deframer = new Deframer();
  const heard: DecodedPacket[] = [];
  socket.on("error", () => socket.destroy());
  socket.on("data", (chunk: Buffer) => heard.push(...deframer.push(chunk).map((m) => decode(m))));
  undo.push(() => socket.destroy());
  return { socket, heard };
}

const rcode = ({ flags = 0 }: DecodedPacket) => flags & 0xf;
const data = ({ answers = [] }: DecodedPacket) =>
  answers.map((answer) => ("data" in answer ? answer.data : undefined));

describe("DnsServer", () => {
  it("answers what the mesh knows without asking anybody", async () => {
    const upstream = await startUpstream();
    const { udpPort, requests, upstreamRequests } = startServer(upstream.address);
    const answer = await askUdp(udpPort, query(KNOWN));
    assert.deepEqual([answer.id, rcode(answer), data(answer)], [7, 0, ["10.96.0.1"]]);
    assert.deepEqual(requests, ["A udp cart"]);
    assert.deepEqual([upstream.heard, upstreamRequests], [[], []]);
  });

  it("passes everything else on, unchanged, and ignores answers that are not to it", async () => {
    const upstream = await startUpstream();
    const { udpPort, upstreamRequests } = startServer(upstream.address);
    assert.deepEqual(data(await askUdp(udpPort, query("example.org"))), ["192.0.2.1"]);
    assert.deepEqual(data(await askUdp(udpPort, query(KNOWN, "TXT"))), ["192.0.2.1"]);
    assert.deepEqual(upstream.heard, ["example.org", KNOWN]);
    assert.deepEqual(upstreamRequests, ["A udp cart answered", "TXT udp cart answered"]);
  });

  it("serves many queries of one TCP connection, from the mesh and from the nameserver", async () => {
    const upstream = await startUpstream();
    const { tcpPort, requests } = startServer(upstream.address);
    const { socket, heard } = openTcp(tcpPort);
    const stream = Buffer.concat([
      framed(query(KNOWN, "A", 1)),
      framed(query("example.org", "A", 2)),
      framed(query(KNOWN, "A", 3)),
    ]);
    socket.write(stream.subarray(0, 5));
    socket.write(stream.subarray(5));
    await waitFor("three answers", () => heard.length === 3);
    const byId = new Map(heard.map((packet) => [packet.id, data(packet)]));
    assert.deepEqual(byId.get(1), ["10.96.0.1"]);
    assert.deepEqual(byId.get(2), ["192.0.2.1"]);
    assert.deepEqual(byId.get(3), ["10.96.0.1"]);
    assert.deepEqual(requests, ["A tcp cart", "A tcp cart", "A tcp cart"]);
  });

  it("fails a query that the nameserver does not answer in time", async () => {
    const upstream = await startUpstream(false);
    const { udpPort, timers, upstreamRequests } = startServer(upstream.address);
    const answer = askUdp(udpPort, query("example.org"));
    await waitFor("the query", () => upstream.heard.length === 1);
    await timers.advance(5_000);
    assert.equal(rcode(await answer), 2);
    assert.deepEqual(upstreamRequests, ["A udp cart failed"]);
  });

  it("fails at once where nobody listens, or the connection is closed", async () => {
    const closed = { ip: LOOPBACK, port: 1 };
    const { udpPort, tcpPort } = startServer(closed);
    assert.equal(rcode(await askUdp(udpPort, query("example.org"))), 2);
    const refused = openTcp(tcpPort);
    refused.socket.write(framed(query("example.org")));
    assert.equal(rcode(await waitFor("an answer", () => refused.heard[0])), 2);
    const silent = openTcp(startServer((await startUpstream(false)).address).tcpPort);
    silent.socket.write(framed(query("example.org")));
    assert.equal(rcode(await waitFor("an answer", () => silent.heard[0])), 2);
  });

  it("fails queries while discovery does not know the pod, and counts them", async () => {
    const upstream = await startUpstream();
    const unknown = async () => undefined;
    const { udpPort, requests } = startServer(upstream.address, { client: unknown });
    assert.equal(rcode(await askUdp(udpPort, query(KNOWN))), 2);
    assert.deepEqual([requests, upstream.heard], [["A udp undefined"], []]);
  });

  it("fails what is too much at a time, and serves again afterwards", async () => {
    const upstream = await startUpstream(false);
    const { udpPort, timers } = startServer(upstream.address);
    const client = openUdp(udpPort);
    for (let id = 0; id < 256; id++) client.send(query("example.org", "A", id));
    await waitFor("all queries", () => upstream.heard.length === 256);
    assert.equal(rcode(await askUdp(udpPort, query(KNOWN))), 2);
    await timers.advance(5_000);
    await waitFor("their failures", () => client.heard.length === 256);
    assert.deepEqual(data(await askUdp(udpPort, query(KNOWN))), ["10.96.0.1"]);
  });

  it("gives forwarding up when the pod leaves", async () => {
    const upstream = await startUpstream(false);
    const { udpPort, abort } = startServer(upstream.address);
    const answer = askUdp(udpPort, query("example.org"));
    await waitFor("the query", () => upstream.heard.length === 1);
    abort.abort();
    assert.equal(rcode(await answer), 2);
  });

  it("goes on after whatever is sent to it, over UDP and TCP", async () => {
    const { udpPort, tcpPort } = startServer(undefined);
    const client = openUdp(udpPort);
    for (const noise of fc.sample(fc.uint8Array({ maxLength: 80 }), 200)) client.send(noise);
    assert.deepEqual(data(await askUdp(udpPort, query(KNOWN))), ["10.96.0.1"]);
    for (const noise of fc.sample(fc.uint8Array({ minLength: 3, maxLength: 80 }), 40)) {
      const { socket } = openTcp(tcpPort);
      socket.end(noise);
    }
    const { socket, heard } = openTcp(tcpPort);
    socket.write(framed(query(KNOWN)));
    assert.deepEqual(data(await waitFor("an answer", () => heard[0])), ["10.96.0.1"]);
  });

  it("ends a TCP connection whose query is longer than any", async () => {
    const { tcpPort } = startServer(undefined);
    const { socket } = openTcp(tcpPort);
    socket.write(Buffer.alloc(5_000, 0x7f));
    await once(socket, "close");
  });

  it("does not go on speaking with a client that sends no queries over TCP", async () => {
    const { tcpPort } = startServer(undefined);
    const { socket } = openTcp(tcpPort);
    socket.write(framed(encode({ type: "response", id: 1 })));
    await once(socket, "close");
  });
});
