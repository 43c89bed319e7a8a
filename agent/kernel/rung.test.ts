import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { chooseRung } from "./rung.ts";

const NONE = { ebpf: 0, nftables: 0 };
const works = () => undefined;
const lacks = (what: string) => () => what;
const never = () => assert.fail("is not to be probed");

describe("chooseRung()", () => {
  it("takes the best that works, and says what is wrong with those above", () => {
    const all = { ebpf: works, nftables: never };
    assert.equal(chooseRung("auto", NONE, all).rung, "ebpf");
    const second = { ebpf: lacks("no sk_lookup"), nftables: works };
    assert.deepEqual(chooseRung("auto", NONE, second), {
      rung: "nftables",
      why: "ebpf: no sk_lookup",
    });
  });

  it("takes the one that is wanted, or none", () => {
    const probes = { ebpf: never, nftables: works };
    const why = "AQUIFER_DATAPATH=nftables";
    assert.deepEqual(chooseRung("nftables", NONE, probes), { rung: "nftables", why });
    assert.throws(() => chooseRung("ebpf", NONE, { ebpf: lacks("no BPF"), nftables: never }), {
      code: "KERNEL_UNSUPPORTED",
      message: "Cannot capture pods: ebpf: no BPF",
    });
  });

  it("says everything that is missing where none works", () => {
    const probes = { ebpf: lacks("no BPF"), nftables: lacks("no nft") };
    assert.throws(() => chooseRung("auto", NONE, probes), {
      code: "KERNEL_UNSUPPORTED",
      message: "Cannot capture pods: ebpf: no BPF; nftables: no nft",
    });
  });

  it("stays with the rung that has pods, without probing", () => {
    const probes = { ebpf: never, nftables: never };
    for (const wanted of ["auto", "nftables"] as const) {
      const { rung } = chooseRung(wanted, { ebpf: 0, nftables: 2 }, probes);
      assert.equal(rung, "nftables");
    }
  });

  it("refuses to change rungs under captured pods", () => {
    const probes = { ebpf: never, nftables: never };
    assert.throws(() => chooseRung("ebpf", { ebpf: 0, nftables: 2 }, probes), {
      code: "SETTINGS_INVALID",
      message:
        "Cannot use AQUIFER_DATAPATH=ebpf: 2 pods are captured with nftables: un-enrol them first",
    });
    assert.throws(() => chooseRung("auto", { ebpf: 1, nftables: 2 }, probes), {
      code: "SETTINGS_INVALID",
    });
  });
});
