import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, it } from "node:test";

const MAIN = join(import.meta.dirname, "main.ts");

describe("the agent's process", () => {
  it("ends with 2 and every mistake in its settings", () => {
    const env = { XDS_ADDRESS: "http://control", SECRET_TTL: "never" };
    const { status, stderr, stdout } = spawnSync(process.execPath, [MAIN], { env });
    assert.equal(status, 2);
    assert.equal(String(stdout), "");
    assert.match(String(stderr), /XDS_ADDRESS=.*\n.*NODE_NAME is not set\n.*SECRET_TTL="never"/);
  });

  it("ends with 1 and a line that says why where it cannot start", (t) => {
    const stateDir = mkdtempSync(join(tmpdir(), "agent-main-"));
    t.after(() => rmSync(stateDir, { recursive: true }));
    const env = {
      NODE_NAME: "n1",
      LOG_FORMAT: "json",
      AQUIFER_STATE_DIR: stateDir,
      AQUIFER_CGROUP_ROOT: "/nowhere",
      AQUIFER_PIN_DIR: "/sys/fs/bpf/aquifer/v1/nowhere",
    };
    const { status, stdout } = spawnSync(process.execPath, [MAIN], { env });
    assert.equal(status, 1);
    const [line = ""] = String(stdout).split("\n");
    const { level, code, error } = JSON.parse(line);
    assert.deepEqual([level, code], ["fatal", "SETTINGS_INVALID"]);
    assert.match(error, /^Cannot attach to .*"\/nowhere"/);
  });
});
