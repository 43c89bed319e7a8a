import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { describe, it } from "node:test";
import { finish } from "../support/local-mesh.ts";

const DEMO = new URL("../../examples/shop/demo.ts", import.meta.url).pathname;
const LIMIT_MS = 180_000;

function start(): ChildProcess {
  return spawn(process.execPath, [DEMO, "--once"], { detached: true });
}

async function runsToItsEnd(): Promise<void> {
  const { code, stdout, stderr } = await finish(start(), LIMIT_MS);
  assert.equal(code, 0, `${stdout}${stderr}`);
  assert.doesNotMatch(stdout, /FAILED/);
  assert.match(stdout, /ok {5}the first mTLS connection comes within 10 s/);
}

describe("npm start -- --once", () => {
  it("holds every claim that it makes, and again right after being killed", async () => {
    await runsToItsEnd();

    const killed = start();
    let printed = "";
    killed.stdout?.on("data", (chunk: Buffer) => {
      printed += chunk.toString();
    });
    const exited = once(killed, "exit");
    const opened = new Promise<void>((resolve) => {
      killed.stdout?.on("data", () => {
        if (printed.includes("The shop is open")) resolve();
      });
    });
    await Promise.race([opened, exited]);
    assert.match(printed, /The shop is open/, "it ended before it was killed");
    // Its process group: the demo and the runtime, none of which can clean up.
    process.kill(-(killed.pid ?? 0), "SIGKILL");
    await exited;

    await runsToItsEnd();
  });
});
