import assert from "node:assert/strict";
import { describe, it, type TestContext } from "node:test";
import { parseIp } from "#core/ip.ts";
import { Loggers, parseLogLevels } from "../log.ts";
import { Readiness } from "./readiness.ts";
import { serveAdmin } from "./servers.ts";

async function serve(t: TestContext) {
  const loggers = new Loggers(
    { format: "json", levels: parseLogLevels("info") },
    { write: () => undefined },
  );
  const done = { discovery: false };
  const readiness = new Readiness();
  readiness.require("discovery", () => done.discovery);
  readiness.require("pods of the last run", () => true);
  const quits: string[] = [];
  const anyPort = { ip: parseIp("127.0.0.1"), port: 0 };
  const servers = await serveAdmin({
    adminAddress: anyPort,
    statsAddress: anyPort,
    readinessAddress: { ip: parseIp("::"), port: 0 },
    readiness,
    loggers,
    configDump: () => ({ workloads: [] }),
    metrics: { text: async () => "# metrics\n", contentType: "text/plain" },
    onQuit: () => quits.push("quit"),
    portWaitMs: 0,
  });
  t.after(() => servers.close());
  const { admin, stats, readiness: ready } = servers.addresses;
  const ask = async (url: string, method = "GET") => {
    const answer = await fetch(url, { method });
    return { status: answer.status, text: await answer.text() };
  };
  return { loggers, done, quits, admin, stats, ready, ask };
}

describe("serveAdmin()", () => {
  it("is not ready until everything is done, and says what is missing", async (t) => {
    const { done, ready, ask } = await serve(t);
    const url = `${ready.replace("[::]", "127.0.0.1")}/healthz/ready`;
    assert.deepEqual(await ask(url), { status: 500, text: "not ready, pending: discovery\n" });
    done.discovery = true;
    assert.equal((await ask(url)).status, 200);
  });

  it("serves metrics under both of their paths", async (t) => {
    const { stats, ask } = await serve(t);
    for (const path of ["/metrics", "/stats/prometheus"]) {
      assert.deepEqual(await ask(stats + path), { status: 200, text: "# metrics\n" });
    }
  });

  it("shows its state and an index", async (t) => {
    const { admin, ask } = await serve(t);
    assert.deepEqual(JSON.parse((await ask(`${admin}/config_dump`)).text), { workloads: [] });
    assert.match((await ask(admin)).text, /config_dump/);
  });

  it("changes log levels and puts them back", async (t) => {
    const { admin, loggers, ask } = await serve(t);
    const set = await ask(`${admin}/logging?level=debug,access=off`, "POST");
    assert.equal(set.text, "current log level is debug,access=off\n");
    assert.equal((await ask(`${admin}/logging?level=loud`, "POST")).status, 400);
    assert.equal(loggers.levels.fallback, "debug");
    assert.equal((await ask(`${admin}/logging?reset`, "POST")).text, "current log level is info\n");
  });

  it("passes on that it is to end", async (t) => {
    const { admin, quits, ask } = await serve(t);
    assert.equal((await ask(`${admin}/quitquitquit`)).status, 404);
    assert.equal((await ask(`${admin}/quitquitquit`, "POST")).status, 200);
    assert.deepEqual(quits, ["quit"]);
  });

  it("names the address that it cannot listen on", async (t) => {
    const { admin } = await serve(t);
    const taken = { ip: parseIp("127.0.0.1"), port: Number(new URL(admin).port) };
    const anyPort = { ip: parseIp("127.0.0.1"), port: 0 };
    const again = serveAdmin({
      adminAddress: anyPort,
      statsAddress: taken,
      readinessAddress: anyPort,
      readiness: new Readiness(),
      loggers: new Loggers({ format: "json", levels: parseLogLevels("off") }),
      configDump: () => ({}),
      metrics: { text: async () => "", contentType: "text/plain" },
      onQuit: () => undefined,
      portWaitMs: 0,
    });
    await assert.rejects(again, { message: `Cannot listen on "127.0.0.1:${taken.port}"` });
  });
});
