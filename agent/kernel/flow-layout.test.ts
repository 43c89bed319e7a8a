import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { ipToMappedBytes, parseIp } from "#core/ip.ts";
import { readBtf } from "../../test/support/btf.ts";
import {
  DENY_EVENT,
  decodeDenyEvent,
  decodeFlowEvent,
  FLOW_EVENT,
  FLOW_FLAGS,
  FLOW_KINDS,
  FLOW_LOSS_NAMES,
  FLOW_ROLE_NAMES,
} from "./flow-layout.ts";
import { COUNTERS } from "./layout.ts";

const OBJECT = new URL("../../build/bpf/layout_check.bpf.o", import.meta.url).pathname;

const types = readBtf(OBJECT);

/** `wasOpen` as `WAS_OPEN`. */
function shout(name: string): string {
  return name.replace(/[A-Z]/g, "_$&").toUpperCase();
}

function numbered(prefix: string, names: readonly string[]): Record<string, number> {
  return Object.fromEntries(names.map((name, index) => [`${prefix}_${shout(name)}`, index]));
}

/** An address as the kernel writes it. */
function writeAddress(bytes: Uint8Array, at: number, ip: string, port: number): void {
  bytes.set(ipToMappedBytes(parseIp(ip)), at);
  new DataView(bytes.buffer).setUint16(at + 16, port, true);
}

describe("flow-layout.ts", () => {
  for (const { struct, bytes, offset } of [FLOW_EVENT, DENY_EVENT]) {
    it(`agrees with clang on struct ${struct}`, () => {
      assert.deepEqual(types.structs.get(struct), { bytes, offsets: offset });
    });
  }

  it("numbers kinds, roles, flags and losses as the kernel side does", () => {
    assert.deepEqual(types.enums.get("flow_kind"), numbered("FLOW", FLOW_KINDS));
    assert.deepEqual(types.enums.get("flow_role"), {
      ...numbered("FLOW", FLOW_ROLE_NAMES),
      FLOW_ROLES: FLOW_ROLE_NAMES.length,
    });
    assert.deepEqual(types.enums.get("flow_flag"), {
      FLOW_WAS_OPEN: FLOW_FLAGS.wasOpen,
      FLOW_RESET: FLOW_FLAGS.reset,
    });
    assert.deepEqual(types.enums.get("flow_loss"), {
      ...numbered("FLOW_LOST", FLOW_LOSS_NAMES),
      FLOW_LOSSES: FLOW_LOSS_NAMES.length,
    });
  });
});

describe("decodeFlowEvent()", () => {
  const bytes = new Uint8Array(FLOW_EVENT.bytes);
  const view = new DataView(bytes.buffer);
  const { offset } = FLOW_EVENT;
  view.setBigUint64(offset.sent_bytes, 5_000_000_000n, true);
  view.setBigUint64(offset.duration_ns, 1_500_000n, true);
  writeAddress(bytes, offset.flow, "10.0.0.1", 40_000);
  writeAddress(bytes, offset.flow + 20, "fd00::2", 80);
  view.setUint32(offset.srtt_us, 321, true);
  view.setUint8(offset.kind, FLOW_KINDS.indexOf("closed"));
  view.setUint8(offset.role, FLOW_ROLE_NAMES.indexOf("directIn"));
  view.setUint8(offset.flags, FLOW_FLAGS.wasOpen);

  it("reads addresses of both families, bytes beyond 32 bits, and times", () => {
    const event = decodeFlowEvent(view);
    assert.deepEqual(event.source, { ip: "10.0.0.1", port: 40_000 });
    assert.deepEqual(event.destination, { ip: "fd00::2", port: 80 });
    assert.equal(event.dialled, undefined);
    assert.equal(event.sentBytes, 5_000_000_000);
    assert.equal(event.durationMs, 1.5);
    assert.equal(event.rttUs, 321);
    assert.deepEqual([event.kind, event.role], ["closed", "directIn"]);
    assert.deepEqual([event.wasOpen, event.reset], [true, false]);
  });

  it("reads the record at an offset", () => {
    const two = new Uint8Array(2 * FLOW_EVENT.bytes);
    two.set(bytes, FLOW_EVENT.bytes);
    const event = decodeFlowEvent(new DataView(two.buffer), FLOW_EVENT.bytes);
    assert.deepEqual(event.destination, { ip: "fd00::2", port: 80 });
  });

  it("refuses a role that it does not know", () => {
    const other = new DataView(bytes.slice().buffer);
    other.setUint8(offset.role, FLOW_ROLE_NAMES.length);
    assert.throws(() => decodeFlowEvent(other), RangeError);
  });
});

describe("decodeDenyEvent()", () => {
  it("names the outcome and the rule", () => {
    const bytes = new Uint8Array(DENY_EVENT.bytes);
    const view = new DataView(bytes.buffer);
    writeAddress(bytes, DENY_EVENT.offset.flow, "10.0.0.1", 0);
    writeAddress(bytes, DENY_EVENT.offset.flow + 20, "10.0.0.2", 80);
    view.setUint32(DENY_EVENT.offset.rule, 7, true);
    view.setUint32(DENY_EVENT.offset.outcome, COUNTERS.indexOf("blocked"), true);
    const { outcome, rule, source, destination } = decodeDenyEvent(view);
    assert.deepEqual({ outcome, rule }, { outcome: "blocked", rule: 7 });
    assert.deepEqual(source, { ip: "10.0.0.1", port: 0 });
    assert.deepEqual(destination, { ip: "10.0.0.2", port: 80 });
  });
});
