import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { parseIp } from "#core/ip.ts";
import { readBtf } from "../../test/support/btf.ts";
import {
  ABI,
  ADDR,
  ATTEST,
  COUNTERS,
  decodeNote,
  decodePodConfig,
  ENDPOINT_KEY,
  encodeNote,
  encodePodConfig,
  FLOW_KEY,
  HANDOFF_KEY,
  HBONE_PORT,
  IN_PORT,
  LISTENER_SLOTS,
  LOCAL_IP,
  MESH_META,
  NOTE,
  NOTE_FLAGS,
  NOTE_KINDS,
  OUT_PORT,
  POD_CFG,
  POD_FLAGS,
  POLICY_KEY,
  POLICY_VAL,
  POLICY_VERDICTS,
  SERVICE,
  sumPerCpu,
} from "./layout.ts";

const OBJECT = new URL("../../build/bpf/layout_check.bpf.o", import.meta.url).pathname;

const types = readBtf(OBJECT);

/** `origDst` as `ORIG_DST`. */
function shout(name: string): string {
  return name.replace(/[A-Z]/g, "_$&").toUpperCase();
}

function numbered(prefix: string, names: readonly string[]): Record<string, number> {
  return Object.fromEntries(names.map((name, index) => [`${prefix}_${shout(name)}`, index]));
}

describe("layout.ts", () => {
  for (const layout of [
    ...[ADDR, FLOW_KEY, HANDOFF_KEY, NOTE, POD_CFG, MESH_META],
    ...[LOCAL_IP, ATTEST, POLICY_KEY, POLICY_VAL, SERVICE, ENDPOINT_KEY],
  ]) {
    it(`agrees with clang on struct ${layout.struct}`, () => {
      const { struct, bytes, offset } = layout;
      assert.deepEqual(types.structs.get(struct), { bytes, offsets: offset });
    });
  }

  it("numbers outcomes, kinds of note, flags and slots as the kernel side does", () => {
    assert.deepEqual(types.enums.get("mesh_outcome"), {
      ...numbered("MESH", COUNTERS),
      MESH_OUTCOMES: COUNTERS.length,
    });
    assert.deepEqual(types.enums.get("note_kind"), numbered("NOTE", NOTE_KINDS));
    assert.deepEqual(types.enums.get("pod_flag"), {
      POD_BLOCKED: POD_FLAGS.blocked,
      POD_DIRECT: POD_FLAGS.direct,
    });
    assert.deepEqual(types.enums.get("note_flag"), { NOTE_ELSEWHERE: NOTE_FLAGS.elsewhere });
    assert.deepEqual(types.enums.get("policy_verdict"), numbered("POLICY", POLICY_VERDICTS));
    assert.deepEqual(types.enums.get("listener_slot"), {
      ...numbered("SLOT", LISTENER_SLOTS),
      LISTENER_SLOTS: LISTENER_SLOTS.length,
    });
  });

  it("has the same version and ports", () => {
    assert.deepEqual(types.enums.get("mesh_number"), {
      MESH_ABI: ABI,
      MESH_OUT_PORT: OUT_PORT,
      MESH_IN_PORT: IN_PORT,
      MESH_HBONE_PORT: HBONE_PORT,
    });
  });
});

describe("encodeNote()", () => {
  for (const [ip, hex] of [
    ["10.1.2.3", "00000000000000000000ffff0a010203"],
    ["fd00::1", "fd000000000000000000000000000001"],
  ] as const) {
    it(`writes ${ip} so that it can be read back`, () => {
      const note = {
        kind: "agent",
        address: { ip: parseIp(ip), port: 0x1234 },
        sourceId: 9,
        isElsewhere: true,
      } as const;
      const bytes = encodeNote(note);
      assert.equal(Buffer.from(bytes).toString("hex"), `${hex}34120100${"03000000"}${"09000000"}`);
      assert.deepEqual(decodeNote(bytes), note);
    });
  }

  it("leaves the address zero where there is none to show", () => {
    const bytes = encodeNote({
      kind: "agent",
      address: undefined,
      sourceId: 0,
      isElsewhere: false,
    });
    assert.deepEqual([...bytes.subarray(0, 20)], new Array(20).fill(0));
    assert.equal(decodeNote(bytes).address, undefined);
  });
});

describe("decodeNote()", () => {
  it("refuses a kind that it does not know", () => {
    const bytes = encodeNote({ kind: "none", address: undefined, sourceId: 0, isElsewhere: false });
    bytes[NOTE.offset.kind] = NOTE_KINDS.length;
    assert.throws(() => decodeNote(bytes), RangeError);
  });
});

describe("encodePodConfig()", () => {
  it("can be read back, with one address or two", () => {
    for (const addresses of [["10.1.2.3"], ["fd00::1"], ["10.1.2.3", "fd00::1"]]) {
      const config = {
        addresses: addresses.map(parseIp),
        id: 0xffff_ffff,
        blocked: true,
        direct: true,
        generation: 5n,
      };
      assert.deepEqual(decodePodConfig(encodePodConfig(config)), config);
    }
  });
});

describe("sumPerCpu()", () => {
  it("adds what each CPU has counted", () => {
    const bytes = new Uint8Array(BigUint64Array.of(1n, 2n, 1n << 40n).buffer);
    assert.equal(sumPerCpu(bytes), 3 + 2 ** 40);
  });
});
