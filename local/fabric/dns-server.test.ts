import assert from "node:assert/strict";
import { createSocket, type Socket } from "node:dgram";
import { once } from "node:events";
import { connect } from "node:net";
import { afterEach, beforeEach, describe, it } from "node:test";
import { decode, encode } from "dns-packet";
import { parseIp } from "#core/ip.ts";
import { DnsServer } from "./dns-server.ts";

const LOOPBACK = parseIp("127.0.0.1");
const LIMIT = { signal: AbortSignal.timeout(10_000) };

/** A port that nothing listens on, of either protocol most likely. */
async function freePort(): Promise<number> {
  const probe = createSocket("udp4");
  probe.bind(0, LOOPBACK);
  await once(probe, "listening");
  const { port } = probe.address();
  probe.close();
  return port;
}

function query(name: string): Buffer {
  return encode({ type: "query", id: 7, questions: [{ name, type: "A" }] });
}

describe("DnsServer", () => {
  let server: DnsServer;
  let client: Socket;
  let port: number;

  const ask = async (name: string) => {
    client.send(query(name), port, LOOPBACK);
    const [message] = (await once(client, "message", LIMIT)) as [Buffer];
    return decode(message);
  };

  beforeEach(async () => {
    server = new DnsServer();
    server.zone = { "web.shop": { kind: "addresses", addresses: [parseIp("10.96.0.1")] } };
    port = await freePort();
    await server.listen([LOOPBACK], port);
    client = createSocket("udp4");
  });

  afterEach(() => {
    server.close();
    client.close();
  });

  it("answers on after a query for a name that every object has", async () => {
    for (const name of ["constructor", "__proto__", "valueof"]) {
      assert.deepEqual((await ask(name)).answers, [], name);
    }
    const { answers } = await ask("web.shop");
    assert.deepEqual(
      answers?.map((each) => ("data" in each ? each.data : "")),
      ["10.96.0.1"],
    );
  });

  it("answers on after garbage", async () => {
    for (const bytes of ["", "x", "\xff".repeat(600)]) client.send(bytes, port, LOOPBACK);
    assert.equal((await ask("web.shop")).answers?.length, 1);
  });

  it("lets go of a client over TCP that asks on and reads nothing", async () => {
    const socket = connect(port, LOOPBACK);
    socket.on("error", () => undefined);
    const closed = new Promise((resolve) => socket.once("close", resolve));
    await once(socket, "connect", LIMIT);
    const asked = query("web.shop");
    const length = Buffer.alloc(2);
    length.writeUInt16BE(asked.length);
    const many = Buffer.concat(Array.from({ length: 1_000 }, () => [length, asked]).flat());
    const flood = () => {
      while (!socket.destroyed && socket.write(many));
    };
    socket.on("drain", flood);
    flood();
    await closed;
    assert.equal((await ask("web.shop")).answers?.length, 1);
  });
});
