import assert from "node:assert/strict";
import { isIPv4, isIPv6 } from "node:net";
import { describe, it } from "node:test";
import fc from "fast-check";
import {
  blockContains,
  formatSocketAddress,
  ipFromBytes,
  ipToBytes,
  ipToMappedBytes,
  parseIp,
  parseIpBlock,
  parseSocketAddress,
} from "./ip.ts";

describe("parseIp()", () => {
  for (const [text, canonical] of [
    ["10.0.0.1", "10.0.0.1"],
    ["::", "::"],
    ["::1", "::1"],
    ["2001:DB8:0:0:0:0:0:1", "2001:db8::1"],
    ["1:0:0:2:0:0:0:3", "1:0:0:2::3"],
    ["1:0:2:3:4:5:6:7", "1:0:2:3:4:5:6:7"],
    ["fe80::1:0:0", "fe80::1:0:0"],
    ["::ffff:10.1.2.3", "10.1.2.3"],
    ["::ffff:0a01:0203", "10.1.2.3"],
    ["64:ff9b::1.2.3.4", "64:ff9b::102:304"],
  ] as const) {
    it(`writes "${text}" as "${canonical}"`, () => assert.equal(parseIp(text), canonical));
  }

  for (const text of [
    "",
    "10.0.0",
    "10.0.0.256",
    "010.0.0.1",
    "10.0.0.1.2",
    "1::2::3",
    ":::",
    "1:2:3:4:5:6:7",
    "1:2:3:4:5:6:7:8:9",
    "1:2:3:4:5:6:7::8:9",
    "12345::",
    "fe80::1%eth0",
    "1.2.3.4::",
    "localhost",
  ]) {
    it(`refuses "${text}"`, () => assert.throws(() => parseIp(text), { code: "ADDRESS_INVALID" }));
  }

  it("agrees with Node on what an address is, and reads back what it writes", () => {
    const bytes = fc.oneof(
      fc.uint8Array({ minLength: 4, maxLength: 4 }),
      fc.uint8Array({ minLength: 16, maxLength: 16 }),
    );
    fc.assert(
      fc.property(bytes, (raw) => {
        const ip = ipFromBytes(raw);
        assert.ok(isIPv4(ip) || isIPv6(ip));
        assert.equal(parseIp(ip), ip);
        assert.deepEqual(ipFromBytes(ipToMappedBytes(ip)), ip);
      }),
      { numRuns: 2_000 },
    );
  });

  it("accepts no text that Node refuses", () => {
    fc.assert(
      fc.property(fc.stringMatching(/^[0-9a-f:.]{1,24}$/), (text) => {
        const accepts = isIPv4(text) || isIPv6(text);
        if (accepts) assert.doesNotThrow(() => parseIp(text));
        else assert.throws(() => parseIp(text), { code: "ADDRESS_INVALID" });
      }),
      { numRuns: 5_000 },
    );
  });
});

describe("ipToBytes()", () => {
  it("gives 4 bytes for IPv4 and 16 for IPv6", () => {
    assert.deepEqual([...ipToBytes(parseIp("10.1.2.3"))], [10, 1, 2, 3]);
    assert.equal(ipToBytes(parseIp("fd00::1")).length, 16);
  });
});

describe("parseIpBlock()", () => {
  it("takes a bare address for a block of one", () => {
    assert.deepEqual(parseIpBlock("10.0.0.1"), { address: "10.0.0.1", length: 32 });
    assert.deepEqual(parseIpBlock("fd00::1"), { address: "fd00::1", length: 128 });
  });

  it("takes the block of everything", () => {
    assert.deepEqual(parseIpBlock("0.0.0.0/0"), { address: "0.0.0.0", length: 0 });
    assert.deepEqual(parseIpBlock("::/0"), { address: "::", length: 0 });
  });

  for (const text of ["10.0.0.0/33", "10.0.0.0/", "10.0.0.0/8/8", "10.0.0.0/-1", "::/129", "x/8"]) {
    it(`refuses "${text}"`, () => {
      assert.throws(() => parseIpBlock(text), { code: "ADDRESS_INVALID" });
    });
  }

  it("refuses bits behind the prefix and says what was meant", () => {
    assert.throws(() => parseIpBlock("10.1.2.3/8"), /"10\.0\.0\.0\/8" has none/);
  });
});

describe("blockContains()", () => {
  for (const [block, ip, expected] of [
    ["10.0.0.0/8", "10.255.0.1", true],
    ["10.0.0.0/8", "11.0.0.1", false],
    ["0.0.0.0/0", "1.2.3.4", true],
    ["0.0.0.0/0", "fd00::1", false],
    ["fd00::/9", "fd7f::1", true],
    ["fd00::/9", "fd80::1", false],
    ["10.0.0.4/31", "10.0.0.5", true],
    ["10.0.0.4/31", "10.0.0.6", false],
  ] as const) {
    it(`says ${expected} of ${ip} in ${block}`, () => {
      assert.equal(blockContains(parseIpBlock(block), parseIp(ip)), expected);
    });
  }
});

describe("parseSocketAddress()", () => {
  for (const text of ["10.0.0.1:80", "[fd00::1]:15008", "[::]:0"]) {
    it(`reads back "${text}"`, () => {
      assert.equal(formatSocketAddress(parseSocketAddress(text)), text);
    });
  }

  for (const text of ["10.0.0.1", "fd00::1:80", "[10.0.0.1]:80", "10.0.0.1:65536", "a:80", ":80"]) {
    it(`refuses "${text}"`, () => {
      assert.throws(() => parseSocketAddress(text), { code: "ADDRESS_INVALID" });
    });
  }
});
