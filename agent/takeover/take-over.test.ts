import assert from "node:assert/strict";
import { mkdtempSync, rmSync, statSync } from "node:fs";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, it, type TestContext } from "node:test";
import { FakeTimers } from "../../test/support/fake-timers.ts";
import { waitFor } from "../../test/support/wait.ts";
import { Loggers, parseLogLevels } from "../log.ts";
import { serveTakeOver } from "./predecessor.ts";
import { meetRunningAgent } from "./successor.ts";

/** A running agent that notes what it is told to do. */
async function serve(t: TestContext) {
  const dir = mkdtempSync(join(tmpdir(), "take-over-"));
  const path = join(dir, "take-over.sock");
  const events: string[] = [];
  const timers = new FakeTimers();
  const loggers = new Loggers(
    { format: "json", levels: parseLogLevels("off") },
    { write: () => undefined },
  );
  const server = await serveTakeOver({
    path,
    timers,
    log: loggers.for("agent"),
    estate: {
      release: async () => {
        events.push("release");
        return ["u1", "u2"];
      },
      reclaim: async () => void events.push("reclaim"),
      cede: () => void events.push("cede"),
    },
  });
  t.after(() => {
    server.close();
    rmSync(dir, { recursive: true });
  });
  return { path, events, timers, server };
}

async function meet(path: string) {
  const running = await meetRunningAgent(path);
  assert.ok(running);
  return running;
}

describe("taking over", () => {
  it("finds nobody where nobody was, or where whoever was is dead", async (t) => {
    const { path, server } = await serve(t);
    assert.equal(await meetRunningAgent(`${path}.other`), undefined);
    server.close();
    assert.equal(await meetRunningAgent(path), undefined);
  });

  it("goes step by step, and leaves one in charge", async (t) => {
    const { path, events, server } = await serve(t);
    assert.equal(statSync(path).mode & 0o777, 0o600);
    const running = await meet(path);
    assert.equal(running.pid, process.pid);
    assert.deepEqual(events, []);
    assert.deepEqual(await running.release(), ["u1", "u2"]);
    await running.finish();
    assert.deepEqual(events, ["release", "cede"]);
    assert.equal(server.phase, "ceded");
  });

  it("is for one at a time", async (t) => {
    const { path } = await serve(t);
    await meet(path);
    await assert.rejects(meetRunningAgent(path), {
      code: "REQUEST_REFUSED",
      message: /^Cannot take over from the agent that is running: process \d+ is taking over$/,
    });
  });

  it("is taken back at the limit, and the one that was too slow hears of it", async (t) => {
    const { path, events, timers, server } = await serve(t);
    const running = await meet(path);
    await running.release();
    await timers.advance(30_000);
    await waitFor("everything to be taken back", () => events.includes("reclaim"));
    await assert.rejects(running.finish(), { code: "REQUEST_REFUSED", message: /took too long/ });
    assert.equal(server.phase, "withdrawn");
  });

  it("is taken back from a process that dies, which leaves room for another", async (t) => {
    const { path, events } = await serve(t);
    const socket = connect({ path });
    socket.write('{"kind":"hello","protocol":1,"pid":7}\n{"kind":"take"}\n');
    await waitFor("the release", () => events.includes("release"));
    socket.destroy();
    await waitFor("everything to be taken back", () => events.includes("reclaim"));
    await (await meet(path)).release();
    assert.deepEqual(events, ["release", "reclaim", "release"]);
  });

  it("hears nobody who speaks another language", async (t) => {
    const { path, events } = await serve(t);
    for (const words of ['{"kind":"take"}\n', "GET / HTTP/1.1\n", '{"kind":"hello"}\n']) {
      const socket = connect({ path });
      socket.on("error", () => undefined);
      socket.write(words);
      await new Promise((resolve) => socket.once("close", resolve).resume());
    }
    assert.deepEqual(events, []);
  });
});
