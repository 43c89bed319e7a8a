import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import path from "node:path";
import { describe, it } from "node:test";
import { THIS_HOST } from "./prepare.ts";
import { chooseVariant, findTrace, listTraces, tracepointsOf } from "./registry.ts";
import type { TracepointFormats } from "./tracefs.ts";

/** A kernel with these fields in these tracepoints. */
function kernel(tracepoints: Readonly<Record<string, Readonly<Record<string, number>>>>) {
  return new Map(
    Object.entries(tracepoints).map(([name, fields]) => [
      name,
      { fields: new Map(Object.entries(fields)), names: new Map() },
    ]),
  ) satisfies TracepointFormats;
}

const SEGMENT = { skaddr: 8, sport: 2, dport: 2, saddr: 4, daddr: 4, saddr_v6: 16, daddr_v6: 16 };
const RECEIVED = { "tcp:tcp_receive_reset": { ...SEGMENT, sock_cookie: 8 } };

describe("chooseVariant", () => {
  const resets = findTrace("resets");

  it("takes the best script that the kernel has all fields for", () => {
    const sent = { skbaddr: 8, skaddr: 8, state: 4, reason: 4, saddr: 28, daddr: 28 };
    const formats = kernel({ ...RECEIVED, "tcp:tcp_send_reset": sent });
    assert.equal(chooseVariant(resets, formats).script, "resets.bt");
  });

  it("takes the script for older kernels where a field is missing or means something else", () => {
    const sent = { skbaddr: 8, state: 4, ...SEGMENT };
    const formats = kernel({ ...RECEIVED, "tcp:tcp_send_reset": sent });
    assert.equal(chooseVariant(resets, formats).script, "resets-5.15.bt");
    const withReason = kernel({ ...RECEIVED, "tcp:tcp_send_reset": { ...sent, reason: 4 } });
    assert.equal(chooseVariant(resets, withReason).script, "resets-5.15.bt");
  });

  it("names the tracepoint or the fields that the kernel lacks", () => {
    assert.throws(() => chooseVariant(resets, kernel(RECEIVED)), {
      code: "KERNEL_UNSUPPORTED",
      message: 'Cannot trace "resets": this kernel has no tracepoint tcp:tcp_send_reset',
    });
    const formats = kernel({ ...RECEIVED, "tcp:tcp_send_reset": { ...SEGMENT, saddr_v6: 4 } });
    assert.throws(() => chooseVariant(resets, formats), {
      message:
        'Cannot trace "resets": this kernel has no field saddr_v6 of 16 bytes in ' +
        "tcp:tcp_send_reset, field state of tcp:tcp_send_reset",
    });
  });
});

describe("findTrace", () => {
  it("refuses a name that is none, and lists those that are", () => {
    assert.throws(() => findTrace("reset"), {
      code: "REQUEST_REFUSED",
      message: /^Cannot trace "reset": it is none of refused-connects, resets, /,
    });
  });
});

describe("listTraces", () => {
  const scripts = listTraces().flatMap(({ variants }) => variants.map(({ script }) => script));

  it("has every script of bpf/trace", () => {
    assert.deepEqual(readdirSync(THIS_HOST.scriptDir).sort(), scripts.toSorted());
  });

  it("asks for the very tracepoints and fields that each script reads", () => {
    for (const { variants } of listTraces()) {
      for (const { script, needs } of variants) {
        const text = readFileSync(path.join(THIS_HOST.scriptDir, script), "utf8");
        const code = text.slice(text.indexOf("*/"));
        const probes = [...code.matchAll(/^tracepoint:(\w+:\w+)/gm)].map(([, name]) => name);
        assert.deepEqual(
          [...new Set(probes)].sort(),
          needs.map(({ tracepoint }) => tracepoint).sort(),
          script,
        );
        const read = [...code.matchAll(/args->(\w+)/g)].map(([, name]) => name);
        const asked = needs.flatMap(({ fields }) => Object.keys(fields));
        assert.deepEqual([...new Set(read)].sort(), [...new Set(asked)].sort(), script);
      }
    }
  });

  it("uses no kprobe, which not every kernel has", () => {
    for (const script of scripts) {
      const text = readFileSync(path.join(THIS_HOST.scriptDir, script), "utf8");
      assert.doesNotMatch(text, /^k(ret)?(probe|func):/m, script);
    }
  });
});

describe("tracepointsOf", () => {
  it("names each tracepoint of all variants once", () => {
    assert.deepEqual(tracepointsOf(findTrace("resets")), [
      "tcp:tcp_send_reset",
      "tcp:tcp_receive_reset",
    ]);
  });
});
