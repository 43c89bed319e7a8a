import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { afterEach, describe, it } from "node:test";
import { parseIp } from "#core/ip.ts";
import type { TraceEvent, TraceNotice } from "#core/trace.ts";
import {
  type FakeBpftrace,
  fakeBpftrace,
  printing,
  untilInterrupted,
} from "../../test/support/fake-bpftrace.ts";
import { until } from "../../test/support/kernel.ts";
import type { TraceHost } from "./prepare.ts";
import { runTrace, type TraceRequest } from "./run.ts";

const cleanUps: (() => void)[] = [];
afterEach(() => {
  for (const cleanUp of cleanUps.splice(0)) cleanUp();
});

function bpftrace(script: string, overrides: Partial<TraceHost> = {}): FakeBpftrace {
  const fake = fakeBpftrace(script, overrides);
  cleanUps.push(fake.remove);
  return fake;
}

/** Starts a trace of resets, and keeps what it says. */
function start({ host, timers }: FakeBpftrace, request: Partial<TraceRequest> = {}) {
  const events: TraceEvent[] = [];
  const notices: TraceNotice[] = [];
  const controller = new AbortController();
  const finished = runTrace(
    {
      name: "resets",
      durationMs: 5_000,
      signal: controller.signal,
      onEvent: (event) => events.push(event),
      onNotice: (notice) => notices.push(notice),
      ...request,
    },
    host,
  );
  cleanUps.push(() => controller.abort());
  // Looked at by the test, later.
  finished.catch(() => {});
  const kinds = () => notices.map(({ kind }) => kind);
  const started = () => until("the trace has started", () => kinds().includes("started"));
  return { events, notices, kinds, controller, finished, started, timers };
}

function reset(source: string): string {
  return (
    '{"kind":"reset","direction":"received","reason":-1,"state":1,"cgroup":7,"netns":8,' +
    `"source":"${source}","sourcePort":1,"destination":"10.1.2.2","destinationPort":2}`
  );
}

const TOTALS = `echo "{\\"type\\":\\"map\\",\\"data\\":{\\"@total\\":{\\"received\\":3}}}";`;

describe("runTrace", () => {
  it("hands events on, and sums up when the time is over", async () => {
    const body = printing(reset("::ffff:10.1.1.2")) + untilInterrupted(TOTALS);
    const trace = start(bpftrace(body));
    await trace.started();
    await trace.timers.advance(4_999);
    assert.equal(trace.events.length, 1);
    await trace.timers.advance(1);
    assert.deepEqual(await trace.finished, {
      name: "resets",
      durationMs: 5_000,
      endedBy: "duration",
      events: 1,
      dropped: 0,
      filtered: 0,
      lost: 0,
      unparsed: 0,
      totals: { received: 3 },
      latencies: [],
      isComplete: true,
    });
  });

  it("ends when the caller says so, also before bpftrace is ready", async () => {
    const trace = start(bpftrace(untilInterrupted(TOTALS)));
    await trace.started();
    trace.controller.abort();
    const { endedBy, isComplete } = await trace.finished;
    assert.deepEqual({ endedBy, isComplete }, { endedBy: "caller", isComplete: true });

    const early = start(bpftrace("while :; do sleep 0.02; done"));
    early.controller.abort();
    const summary = await early.finished;
    assert.deepEqual([summary.endedBy, summary.isComplete], ["caller", false]);
  });

  it("kills a bpftrace that does not stop", async () => {
    const stubborn = `trap '' INT\n${printing('{"kind":"ready"}')}while :; do sleep 0.02; done`;
    const trace = start(bpftrace(stubborn));
    await trace.started();
    trace.controller.abort();
    await trace.timers.advance(10_000);
    assert.equal((await trace.finished).isComplete, false);
  });

  it("leaves out events above the rate, and says how many", async () => {
    const line = JSON.stringify({ type: "printf", data: `${reset("10.1.1.2")}\n` });
    const body = `i=0; while [ $i -lt 600 ]; do printf "%s\\n" '${line}'; i=$((i+1)); done\n`;
    const trace = start(bpftrace(body + untilInterrupted()));
    await trace.started();
    assert.equal(trace.events.length, 500);
    await trace.timers.advance(1_000);
    assert.deepEqual(
      trace.notices.filter(({ kind }) => kind === "dropped"),
      [{ kind: "dropped", count: 100 }],
    );
    trace.controller.abort();
    const { events, dropped } = await trace.finished;
    assert.deepEqual({ events, dropped }, { events: 500, dropped: 100 });
  });

  it("reports lost events, and lines that it cannot read", async () => {
    const body =
      `echo '{"type":"lost_events","data":{"events":9}}'\necho nonsense\n` +
      `head -c 40000 /dev/zero | tr '\\0' x\necho\n${untilInterrupted()}`;
    const trace = start(bpftrace(body));
    await trace.started();
    trace.controller.abort();
    const { lost, unparsed } = await trace.finished;
    assert.deepEqual({ lost, unparsed }, { lost: 9, unparsed: 2 });
    assert.deepEqual(trace.kinds(), ["lost", "unparsed", "unparsed", "started"]);
    const [, nonsense, tooLong] = trace.notices;
    assert.ok(nonsense?.kind === "unparsed" && nonsense.line === "nonsense");
    assert.ok(tooLong?.kind === "unparsed" && tooLong.line.length === 200);
  });

  it("stops reporting such lines at a hundred, and counts on", async () => {
    const body = "i=0; while [ $i -lt 300 ]; do echo nonsense; i=$((i+1)); done\n";
    const trace = start(bpftrace(body + untilInterrupted()));
    await trace.started();
    trace.controller.abort();
    assert.equal((await trace.finished).unparsed, 300);
    assert.equal(trace.kinds().filter((kind) => kind === "unparsed").length, 100);
    assert.equal(trace.kinds().filter((kind) => kind === "warning").length, 1);
  });

  it("hands on what bpftrace warns of, but not that it may not lock memory", async () => {
    const body =
      `echo "ERROR: Unknown error -1: couldn't set RLIMIT_MEMLOCK for bpftrace." >&2\n` +
      `echo "something else" >&2\n${untilInterrupted()}`;
    const trace = start(bpftrace(body));
    await until("both are said", () => trace.notices.length === 2);
    trace.controller.abort();
    await trace.finished;
    const warnings = trace.notices.filter(({ kind }) => kind === "warning");
    assert.deepEqual(warnings, [{ kind: "warning", text: "something else" }]);
  });

  it("passes only events of the addresses that are chosen", async () => {
    const lines = ["10.1.1.2", "10.1.1.3"].map((source) => printing(reset(source)));
    const filter = { addresses: [parseIp("10.1.1.3")] };
    const trace = start(bpftrace(lines.join("") + untilInterrupted()), { filter });
    await trace.started();
    trace.controller.abort();
    const { events, filtered } = await trace.finished;
    assert.deepEqual({ events, filtered }, { events: 1, filtered: 1 });
    assert.ok(trace.events[0]?.kind === "reset" && trace.events[0].source.ip === "10.1.1.3");
  });

  it("gives the script what is chosen in the kernel, and the default of the rest", async () => {
    const printArguments = `echo "args $*" >&2\n${untilInterrupted()}`;
    const argumentsOf = async (request: Partial<TraceRequest>) => {
      const trace = start(bpftrace(printArguments), request);
      await until("it has said so", () => trace.notices.some(({ kind }) => kind === "warning"));
      trace.controller.abort();
      await trace.finished;
      const warning = trace.notices.find(({ kind }) => kind === "warning");
      return warning?.kind === "warning" ? warning.text : undefined;
    };
    const options = "args --no-warnings -f json /scripts/";
    assert.equal(await argumentsOf({}), `${options}resets.bt 0 0 0`);
    assert.equal(
      await argumentsOf({
        name: "handshakes",
        filter: { netns: 4026532177, cgroup: 99 },
        slowHandshakeUs: 500,
      }),
      `${options}handshakes.bt 4026532177 99 500`,
    );
    assert.equal(await argumentsOf({ name: "ring-buffers" }), `${options}ring-buffers.bt 42 20 21`);
  });

  it("fails with what bpftrace said where it ends by itself", async () => {
    const trace = start(bpftrace('echo "ERROR: no permission" >&2\nexit 3'));
    await assert.rejects(trace.finished, {
      code: "COMMAND_FAILED",
      message: 'Cannot trace "resets": bpftrace ended with status 3: ERROR: no permission',
    });
  });

  it("fails where bpftrace does not get ready", async () => {
    const trace = start(bpftrace("while :; do sleep 0.02; done"));
    await until("it has been started", () => trace.timers.nextInMs() !== undefined);
    await trace.timers.advance(30_000);
    await assert.rejects(trace.finished, /has not attached its probes within 30 s/);
  });

  it("ends bpftrace and fails where the caller's function throws", async () => {
    const trace = start(bpftrace(printing(reset("10.1.1.2")) + untilInterrupted()), {
      onEvent: () => {
        throw new RangeError("mine");
      },
    });
    await assert.rejects(trace.finished, new RangeError("mine"));
  });

  it("leaves no listener behind", async () => {
    const before = process.listenerCount("exit");
    const trace = start(bpftrace(untilInterrupted()));
    await trace.started();
    assert.equal(process.listenerCount("exit"), before + 1);
    trace.controller.abort();
    await trace.finished;
    assert.equal(process.listenerCount("exit"), before);
    assert.equal(trace.timers.nextInMs(), undefined);
  });
});

describe("runTrace, before anything is started", () => {
  const refuses = async (
    message: string | RegExp,
    { request = {}, overrides = {} }: { request?: object; overrides?: Partial<TraceHost> },
  ) => {
    const { finished } = start(bpftrace("exit 9", overrides), request);
    await assert.rejects(finished, { message });
  };

  it("refuses a duration or a filter that cannot be", async () => {
    await refuses('Cannot trace "resets": 600001 ms is not between 1 ms and 10 minutes', {
      request: { durationMs: 600_001 },
    });
    await refuses(/NaN ms is not between/, { request: { durationMs: Number.NaN } });
    await refuses('Cannot trace "handshakes": it cannot be filtered by addresses', {
      request: { name: "handshakes", filter: { addresses: [parseIp("10.1.1.2")] } },
    });
    await refuses('Cannot trace "resets": -1 is no positive integer', {
      request: { filter: { netns: -1 } },
    });
    await refuses('Cannot trace "resets": only handshakes have a limit to what is slow', {
      request: { slowHandshakeUs: 5 },
    });
  });

  it("says which package is missing, and which version is too old", async () => {
    await refuses(/: bpftrace is not installed: install the package "bpftrace" \(apt, dnf, apk\)/, {
      overrides: { bpftrace: "/nowhere/bpftrace" },
    });
    await refuses(/"\/bin\/echo --version" says /, { overrides: { bpftrace: "/bin/echo" } });
    const old = fakeBpftrace("");
    cleanUps.push(old.remove);
    writeFileSync(old.host.bpftrace, '#!/bin/sh\necho "bpftrace v0.16.2"\n');
    await assert.rejects(start(old).finished, {
      code: "COMMAND_FAILED",
      message: 'Cannot trace "resets": bpftrace 0.16.2 is too old, 0.17.0 or newer is needed',
    });
  });

  it("says what else the host lacks", async () => {
    await refuses(/it takes root/, { overrides: { isRoot: () => false } });
    await refuses(/no \/sys\/kernel\/btf\/vmlinux/, { overrides: { hasKernelTypes: () => false } });
    await refuses(/no tracepoint tcp:tcp_send_reset/, {
      overrides: { readFormats: async () => new Map() },
    });
    const ringBuffers = { pid: 42, fds: [], isPidOfHost: true };
    await refuses(/the agent has 0 ring buffers open, not 1 to 4/, {
      request: { name: "ring-buffers" },
      overrides: { ringBuffers: () => ringBuffers },
    });
    await refuses(/a PID namespace of its own/, {
      request: { name: "ring-buffers" },
      overrides: { ringBuffers: () => ({ ...ringBuffers, isPidOfHost: false }) },
    });
  });
});
