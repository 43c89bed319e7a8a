import assert from "node:assert/strict";
import { afterEach, describe, it } from "node:test";
import fastify, { type FastifyInstance } from "fastify";
import type { TraceLine } from "#core/trace.ts";
import { fakeBpftrace, printing, untilInterrupted } from "../../test/support/fake-bpftrace.ts";
import { until } from "../../test/support/kernel.ts";
import { addTraceRoutes } from "./route.ts";

const cleanUps: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanUp of cleanUps.splice(0).reverse()) await cleanUp();
});

const RESET =
  '{"kind":"reset","direction":"received","reason":-1,"state":1,"cgroup":7,"netns":8,' +
  '"source":"10.1.1.2","sourcePort":1,"destination":"10.1.2.2","destinationPort":2}';

async function serve(script: string) {
  const fake = fakeBpftrace(script);
  cleanUps.push(fake.remove);
  const server: FastifyInstance = fastify();
  const findNetns = (pod: string) => (pod === "shop/web" ? "/proc/self/ns/net" : undefined);
  addTraceRoutes(server, { findNetns, host: fake.host });
  const base = await server.listen({ host: "127.0.0.1", port: 0 });
  cleanUps.push(() => server.close());
  return { ...fake, server, base, get: (path: string) => fetch(`${base}${path}`) };
}

function linesOf(text: string): readonly TraceLine[] {
  return text
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line) as TraceLine);
}

describe("addTraceRoutes", () => {
  it("lists the traces and what each tells", async () => {
    const { get } = await serve("");
    const { traces } = (await (await get("/v1/traces")).json()) as {
      traces: { name: string; tells: string }[];
    };
    assert.equal(traces.length, 5);
    assert.match(traces.find(({ name }) => name === "resets")?.tells ?? "", /TCP resets/);
  });

  it("streams events and notices, a line each, and a summary at the end", async () => {
    const { get, timers } = await serve(printing(RESET) + untilInterrupted());
    const response = await get("/v1/trace/resets?for=2s");
    assert.equal(response.status, 200);
    assert.equal(response.headers.get("content-type"), "application/x-ndjson");
    await timers.advance(2_000);
    const lines = linesOf(await response.text());
    assert.deepEqual(
      lines.map(({ type }) => type),
      ["event", "notice", "summary"],
    );
    const summary = lines.at(-1);
    assert.ok(summary?.type === "summary" && summary.summary.durationMs === 2_000);
  });

  it("chooses a pod by its network namespace", async () => {
    const { get, timers } = await serve(`echo "args $*" >&2\n${untilInterrupted()}`);
    const response = await get("/v1/trace/handshakes?for=1s&pod=shop/web&slow=5ms");
    await timers.advance(1_000);
    assert.match(await response.text(), /handshakes\.bt [1-9]\d+ 0 5000"/);
  });

  it("refuses what it does not understand before it starts anything", async () => {
    const { get } = await serve("exit 1");
    for (const [path, message] of [
      ["/v1/trace/nothing", /Cannot trace \\?"nothing\\?": it is none of/],
      ["/v1/trace/resets?for=10", /for=10.*expected a number and ms, s, m or h/],
      ["/v1/trace/resets?for=11m", /is not between 1 ms and 10 minutes/],
      ["/v1/trace/resets?pod=shop/other", /there is no pod/],
      ["/v1/trace/resets?filter=x", /unknown parameter/],
      ["/v1/trace/resets?for=1s&for=2s", /is given more than once/],
    ] as const) {
      const response = await get(path);
      assert.ok(response.status >= 400, path);
      assert.match(await response.text(), message);
    }
  });

  it("answers with an error where bpftrace does not come so far as to trace", async () => {
    const { get } = await serve('echo "no permission" >&2; exit 1');
    const response = await get("/v1/trace/resets");
    assert.ok(response.status >= 400);
    assert.match(await response.text(), /bpftrace ended with status 1: no permission/);
  });

  it("ends the stream with an error where bpftrace fails later", async () => {
    const { get } = await serve(`${printing('{"kind":"ready"}')}exit 4`);
    const lines = linesOf(await (await get("/v1/trace/resets")).text());
    assert.deepEqual(lines.at(-1), {
      type: "error",
      error: 'Cannot trace "resets": bpftrace ended with status 4',
    });
  });

  it("ends the trace of a client that hangs up", async () => {
    const { base, timers } = await serve(untilInterrupted());
    const controller = new AbortController();
    const response = await fetch(`${base}/v1/trace/resets?for=1s`, { signal: controller.signal });
    assert.equal(response.status, 200);
    assert.notEqual(timers.nextInMs(), undefined);
    controller.abort();
    await until("bpftrace has ended", () => timers.nextInMs() === undefined);
  });

  it("runs four traces at a time, and ends them when the server closes", async () => {
    const { server, get, timers } = await serve(untilInterrupted());
    const responses = await Promise.all([1, 2, 3, 4].map(() => get("/v1/trace/resets")));
    assert.deepEqual(
      responses.map(({ status }) => status),
      [200, 200, 200, 200],
    );
    assert.match(await (await get("/v1/trace/resets")).text(), /4 traces are running already/);
    const [texts] = await Promise.all([
      Promise.all(responses.map((response) => response.text())),
      server.close(),
    ]);
    for (const text of texts) assert.equal(linesOf(text).at(-1)?.type, "summary");
    assert.equal(timers.nextInMs(), undefined);
  });
});
