import assert from "node:assert/strict";
import type net from "node:net";
import { after, before, describe, it } from "node:test";
import { parseIp } from "#core/ip.ts";
import { fdOf } from "#native/kernel/index.ts";
import { type CompiledProgram, compileC } from "../support/compile.ts";
import { makeNetwork, type TestNetwork } from "../support/netns.ts";
import { endOf, Rig } from "./rig.ts";

/** Of each kind; together 20,000 and some. */
const CONNECTIONS = 6_700;
const NUMBER_BYTES = 8;

describe("original destination", () => {
  let network: TestNetwork;
  let rig: Rig;
  let client: CompiledProgram;
  const wrong: string[] = [];
  let accepted = 0;

  before(async () => {
    network = makeNetwork("orig");
    client = compileC(new URL("connect_load.c", import.meta.url).pathname);
    rig = new Rig(network);
    const { netns } = network.a;
    const capture = rig.datapath.enrol({
      uid: "a",
      netns,
      addresses: [network.a.ip4, network.a.ip6],
      id: 7,
    });
    const out4 = netns.listen({ ip: parseIp("127.0.0.1"), port: 0, backlog: 4096 });
    const out6 = netns.listen({ ip: parseIp("::1"), port: 0, backlog: 4096 });
    await rig.serve(out4, (socket) => judge(socket, (n) => `198.18.${n >> 8}.${n & 255}`));
    await rig.serve(out6, (socket) => {
      judge(socket, (n) => `2001:db8::${(n >> 8).toString(16)}:${(n & 255).toString(16)}`);
    });
    capture.setListeners({ out4, out6 });
    capture.unblock();
  });
  after(async () => {
    await rig?.close();
    client?.remove();
    network?.close();
  });

  /**
   * Asks the kernel as soon as the connection is there, and compares when the client has spoken.
   */
  function judge(socket: net.Socket, meant: (number: number) => string): void {
    accepted++;
    const fd = fdOf(socket);
    const original = fd === undefined ? undefined : rig.datapath.originalDestination(fd);
    socket.once("data", (data) => {
      assert.equal(data.length, NUMBER_BYTES);
      const number = Number(data.toString());
      const expected = endOf(meant(number), 1024 + number);
      const actual = endOf(original?.ip, original?.port);
      if (actual !== expected) wrong.push(`${actual} instead of ${expected}`);
      socket.end(actual === expected ? "y" : "n");
    });
  }

  it(`is right for ${3 * CONNECTIONS} connections over IPv4, IPv6 and mapped together`, async () => {
    const results = await Promise.all(
      ["v4", "v6", "mapped"].map((mode) => network.a.run(client.path, [mode, `${CONNECTIONS}`])),
    );
    assert.deepEqual(
      results,
      results.map(() => ({ status: 0, stdout: `${CONNECTIONS}\n`, stderr: "" })),
    );
    assert.deepEqual(wrong, []);
    assert.equal(accepted, 3 * CONNECTIONS);
  });

  it("has been counted at each step, and leaves nothing in transit", () => {
    const { captured, handedOver, takenOver, inOutbound, noMemory, handoffFull, takeoverFailed } =
      rig.datapath.counters();
    assert.deepEqual(
      { captured, handedOver, takenOver, inOutbound },
      {
        captured: 3 * CONNECTIONS,
        handedOver: 3 * CONNECTIONS,
        takenOver: 3 * CONNECTIONS,
        inOutbound: 3 * CONNECTIONS,
      },
    );
    assert.deepEqual({ noMemory, handoffFull, takeoverFailed }, noFailures);
    assert.equal(rig.handoffEntries(), 0);
  });
});

const noFailures = { noMemory: 0, handoffFull: 0, takeoverFailed: 0 };
