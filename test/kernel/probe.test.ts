import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { readdirSync } from "node:fs";
import { describe, it } from "node:test";
import type { ProbeAnswer } from "../../agent/probe-command.ts";
import { cgroup2Root } from "../support/kernel.ts";

const MAIN = new URL("../../agent/main.ts", import.meta.url).pathname;

function probe() {
  const { pid, status, stdout, stderr } = spawnSync(
    process.execPath,
    [MAIN, "--probe", "-o", "json"],
    { encoding: "utf8" },
  );
  return { pid, status, stdout, stderr };
}

describe("agent --probe", () => {
  it("finds both rungs, and what the better one costs, and leaves nothing", () => {
    const { pid, status, stdout, stderr } = probe();
    assert.equal(status, 0, stderr);
    const { rung, features, objects } = JSON.parse(stdout) as ProbeAnswer;
    assert.equal(rung, "ebpf");
    assert.deepEqual(
      features.filter(({ isNeeded, missing }) => isNeeded && missing !== undefined),
      [],
    );
    const inbound = objects.find(({ object }) => object === "inbound.bpf.o");
    const lookup = inbound?.programs.find(({ name }) => name === "in_lookup");
    assert.ok((lookup?.jitedBytes ?? 0) > 0);
    assert.ok((lookup?.verifiedInstructions ?? 0) > 0);
    assert.ok((inbound?.attachMs["in_lookup"] ?? 0) > 0);
    assert.ok(inbound?.maps.every(({ memoryBytes }) => memoryBytes > 0));
    const left = readdirSync(cgroup2Root()).filter((name) => name.endsWith(`-${pid}`));
    assert.deepEqual(left, []);
  });

  it("takes the second where there is no cgroup2, and says why", () => {
    const script = 'umount --lazy "$0" && exec "$@"';
    const { status, stdout, stderr } = spawnSync(
      "unshare",
      [
        "--mount",
        "sh",
        "-c",
        script,
        cgroup2Root(),
        process.execPath,
        MAIN,
        "--probe",
        "-o",
        "json",
      ],
      { encoding: "utf8" },
    );
    assert.equal(status, 0, stderr);
    const { rung, why } = JSON.parse(stdout) as ProbeAnswer;
    assert.equal(rung, "nftables");
    assert.equal(why, "ebpf: Cannot find cgroup2: it is not mounted");
  });

  it("ends with 1 and says why where it may not even look", () => {
    const none = ["--bounding-set=-bpf,-perfmon,-sys_admin", "--inh-caps=-bpf,-perfmon,-sys_admin"];
    const { status, stderr } = spawnSync("setpriv", [...none, process.execPath, MAIN, "--probe"], {
      encoding: "utf8",
    });
    assert.equal(status, 1);
    assert.equal(stderr, "Cannot make a network namespace to probe in\n");
  });
});
