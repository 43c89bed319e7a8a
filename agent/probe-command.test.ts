import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { Feature, LoadedObject } from "./kernel/probe.ts";
import { answerOf, describeProbe, runProbe } from "./probe-command.ts";

function feature(rung: Feature["rung"], missing?: string, isNeeded = true): Feature {
  return { rung, name: "f", purpose: "p", isNeeded, missing };
}

describe("answerOf()", () => {
  it("names the best rung that lacks nothing it needs", () => {
    const features = [feature("ebpf", "not built", false), feature("ebpf"), feature("nftables")];
    assert.equal(answerOf({ features, objects: [] }).rung, "ebpf");
  });

  it("says why the best is not possible", () => {
    const features = [feature("ebpf", "no sk_lookup"), feature("nftables")];
    const { rung, why } = answerOf({ features, objects: [] });
    assert.deepEqual([rung, why], ["nftables", "ebpf: no sk_lookup"]);
  });

  it("names none where each lacks something", () => {
    const features = [feature("ebpf", "no BPF"), feature("nftables", "no nft")];
    const { rung, why } = answerOf({ features, objects: [] });
    assert.deepEqual([rung, why], [null, "ebpf: no BPF; nftables: no nft"]);
  });
});

describe("describeProbe()", () => {
  it("tells what each program costs, and maps once", () => {
    const maps = [
      { name: "pods", memoryBytes: 2048 },
      { name: "listeners", memoryBytes: 512 },
    ];
    const programs = [{ name: "in_lookup", verifiedInstructions: 0, jitedBytes: 700 }];
    const object: LoadedObject = { object: "a", loadMs: 1, attachMs: {}, programs, maps };
    const other = { ...object, object: "b" };
    const text = describeProbe(answerOf({ features: [], objects: [object, other] }));
    assert.match(text, /^a {7}1\.0 ms {2}in_lookup {2}not told {2}700 B {2}-$/m);
    assert.match(text, /^maps of the node: 2 KiB, of each pod: 1 KiB$/m);
  });
});

describe("runProbe()", () => {
  it("refuses what it does not know", async (t) => {
    const write = t.mock.method(process.stderr, "write", () => true);
    assert.equal(await runProbe(["--prob"], {}), 2);
    assert.match(String(write.mock.calls[0]?.arguments[0]), /expected --probe \[-o json\]/);
  });
});
