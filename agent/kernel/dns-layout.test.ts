import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { parseIp } from "#core/ip.ts";
import { readBtf } from "../../test/support/btf.ts";
import {
  DNS_COUNTERS,
  DNS_POD,
  DNS_PORT,
  DNS_SLOT_KEY,
  DNS_SLOTS,
  DNS_SLOTS_PER_FAMILY,
  decodeAddr,
  decodeDnsPod,
  encodeAddr,
  encodeDnsPod,
  encodeDnsSlotKey,
} from "./dns-layout.ts";

const OBJECT = new URL("../../build/bpf/layout_check.bpf.o", import.meta.url).pathname;

const types = readBtf(OBJECT);

/** `agentsOwn` as `AGENTS_OWN`. */
function shout(name: string): string {
  return name.replace(/[A-Z]/g, "_$&").toUpperCase();
}

describe("dns-layout.ts", () => {
  for (const { struct, bytes, offset } of [DNS_POD, DNS_SLOT_KEY]) {
    it(`agrees with clang on struct ${struct}`, () => {
      assert.deepEqual(types.structs.get(struct), { bytes, offsets: offset });
    });
  }

  it("numbers outcomes and slots as the kernel side does", () => {
    const outcomes = DNS_COUNTERS.map((name, index) => [`DNS_${shout(name)}`, index]);
    assert.deepEqual(types.enums.get("dns_outcome"), {
      ...Object.fromEntries(outcomes),
      DNS_OUTCOMES: DNS_COUNTERS.length,
    });
    assert.deepEqual(types.enums.get("dns_number"), {
      DNS_PORT,
      DNS_SLOTS_PER_FAMILY,
      DNS_SLOTS,
    });
  });
});

describe("encodeDnsPod()", () => {
  it("can be read back", () => {
    const ports = [1, 2, 3, 4, 0, 0, 0, 65_535];
    assert.deepEqual(decodeDnsPod(encodeDnsPod(ports)), ports);
  });
});

describe("encodeDnsSlotKey()", () => {
  it("leaves the padding zero, since keys are compared whole", () => {
    const bytes = encodeDnsSlotKey(0x0102n, 7);
    assert.equal(Buffer.from(bytes).toString("hex"), `0201000000000000${"07000000"}${"00000000"}`);
  });
});

describe("encodeAddr()", () => {
  for (const ip of ["10.96.0.10", "fd96::a"]) {
    it(`writes ${ip} so that it can be read back`, () => {
      const address = { ip: parseIp(ip), port: DNS_PORT };
      assert.deepEqual(decodeAddr(encodeAddr(address)), address);
    });
  }
});
