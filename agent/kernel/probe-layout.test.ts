import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { parseIp } from "#core/ip.ts";
import { readBtf } from "../../test/support/btf.ts";
import {
  encodeNameservers,
  PROBE_COUNTERS,
  PROBE_PORTS_MAX,
  STRICT_COUNTERS,
  STRICT_MODES,
  STRICT_NAMESERVER,
  STRICT_NAMESERVERS,
} from "./probe-layout.ts";

const OBJECT = new URL("../../build/bpf/layout_check.bpf.o", import.meta.url).pathname;

/** `probeLetIn` as `PROBE_LET_IN`. */
function numbered(names: readonly string[]): Record<string, number> {
  const shout = (name: string) => name.replace(/[A-Z]/g, "_$&").toUpperCase();
  return Object.fromEntries(names.map((name, index) => [shout(name), index]));
}

describe("probe-layout.ts", () => {
  it("agrees with clang on numbers and structs", () => {
    const { structs, enums } = readBtf(OBJECT);
    const { struct, bytes, offset } = STRICT_NAMESERVER;
    assert.deepEqual(structs.get(struct), { bytes, offsets: offset });
    assert.deepEqual(enums.get("guard_number"), { PROBE_PORTS_MAX, STRICT_NAMESERVERS });
    assert.deepEqual(enums.get("probe_outcome"), {
      ...numbered(PROBE_COUNTERS),
      PROBE_OUTCOMES: PROBE_COUNTERS.length,
    });
    assert.deepEqual(enums.get("strict_mode"), {
      STRICT_REPORT: STRICT_MODES.report,
      STRICT_ENFORCE: STRICT_MODES.enforce,
    });
    assert.deepEqual(enums.get("strict_outcome"), {
      ...numbered(STRICT_COUNTERS),
      STRICT_OUTCOMES: STRICT_COUNTERS.length,
    });
  });
});

describe("encodeNameservers()", () => {
  it("leaves the entries zero that it has no address for", () => {
    const bytes = encodeNameservers([parseIp("10.96.0.10")]);
    assert.equal(bytes.length, STRICT_NAMESERVERS * STRICT_NAMESERVER.bytes);
    const [first, rest] = [bytes.subarray(0, 16), bytes.subarray(16)];
    assert.equal(Buffer.from(first).toString("hex"), "00000000000000000000ffff0a60000a");
    assert.ok(rest.every((byte) => byte === 0));
  });

  it("refuses more than it has room for", () => {
    const ip = parseIp("10.96.0.10");
    assert.throws(() => encodeNameservers(new Array(STRICT_NAMESERVERS + 1).fill(ip)), RangeError);
  });
});
