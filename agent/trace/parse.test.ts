import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { parseIp } from "#core/ip.ts";
import { parseOutput } from "./parse.ts";

const CONTEXT = { nowMs: 1_000, resetReasons: new Map([[1, "NO_SOCKET"]]) };
const OWNER = { atMs: 1_000, netns: 4026532177, cgroup: 17334 };
const ENDS_PRINTED = {
  source: "::ffff:10.1.1.2",
  sourcePort: 45544,
  destination: "fd00:2:0:0:0:0:0:2",
  destinationPort: 80,
};
const ENDS = {
  source: { ip: parseIp("10.1.1.2"), port: 45544 },
  destination: { ip: parseIp("fd00:2::2"), port: 80 },
};

/** As bpftrace prints it: a script's line in a line of JSON. */
function printed(text: string): string {
  return JSON.stringify({ type: "printf", data: `${text}\n` });
}

function parsePrinted(fields: object) {
  return parseOutput(printed(JSON.stringify(fields)), CONTEXT);
}

function eventOf(fields: object) {
  const output = parsePrinted(fields);
  assert.equal(output.kind, "event");
  return output.kind === "event" ? output.event : undefined;
}

describe("parseOutput", () => {
  it("reads a connect that a hook refused", () => {
    const line =
      '{"kind":"refused","stage":"connect","errno":1,"pid":12,"cgroup":17334,' +
      '"netns":4026532177,"protocol":6,"asked":"10.96.0.10","askedPort":80,"comm":"curl"}';
    assert.deepEqual(parseOutput(printed(line), CONTEXT), {
      kind: "event",
      event: {
        kind: "refused",
        ...OWNER,
        pid: 12,
        comm: "curl",
        stage: "connect",
        error: "EPERM",
        protocol: "tcp",
        asked: { ip: "10.96.0.10", port: 80 },
      },
    });
  });

  it("reads a handshake that failed, with and without what was asked for", () => {
    const fields = {
      kind: "refused",
      stage: "handshake",
      errno: 0,
      pid: 0,
      cgroup: 17334,
      netns: 4026532177,
      protocol: 6,
      ...ENDS_PRINTED,
      comm: "",
    };
    const event = {
      kind: "refused",
      ...OWNER,
      pid: 0,
      comm: "",
      stage: "handshake",
      error: "none",
      protocol: "tcp",
      ...ENDS,
    };
    assert.deepEqual(eventOf(fields), event);
    const { comm, ...others } = fields;
    const asked = { asked: "10.96.0.10", askedPort: 80, comm };
    assert.deepEqual(eventOf({ ...others, errno: 111, ...asked }), {
      ...event,
      error: "ECONNREFUSED",
      asked: { ip: "10.96.0.10", port: 80 },
    });
  });

  it("takes a process's name as it is, whatever quotes and braces it holds", () => {
    const head =
      '{"kind":"slow-handshake","latencyUs":5,"pid":1,"cgroup":17334,"netns":4026532177,' +
      '"source":"10.1.1.2","sourcePort":1,"destination":"10.1.1.3","destinationPort":2,"comm":"';
    for (const comm of ['a","pid":0,"', 'x"}\n{"kind":"', "\\\u0001", '","comm":"b']) {
      const output = parseOutput(printed(`${head}${comm}"}`), CONTEXT);
      assert.ok(output.kind === "event" && output.event.kind === "slow-handshake");
      assert.deepEqual([output.event.comm, output.event.pid], [comm, 1]);
    }
  });

  it("replaces bytes that bpftrace 0.17 writes as a wrong escape", () => {
    const text =
      '{"kind":"ring-buffer","fd":5,"sizeBytes":1,"waitingBytes":0,"peakBytes":0,' +
      '"writtenBytes":0,"map":"a\\uffffffc3b"}';
    const line = `{"type": "printf", "data": ${JSON.stringify(`${text}\n`).replace("\\\\u", "\\u")}}`;
    const output = parseOutput(line, CONTEXT);
    assert.ok(output.kind === "event" && output.event.kind === "ring-buffer");
    assert.equal(output.event.map, "a\ufffdb");
  });

  it("names the reason of a reset, and has none where the kernel gives none", () => {
    const fields = {
      kind: "reset",
      direction: "sent",
      reason: 1,
      state: 0,
      cgroup: 17334,
      netns: 4026532177,
      ...ENDS_PRINTED,
    };
    const event = { kind: "reset", ...OWNER, direction: "sent", state: "none", ...ENDS };
    assert.deepEqual(eventOf(fields), { ...event, reason: "NO_SOCKET" });
    assert.deepEqual(eventOf({ ...fields, reason: 99 }), { ...event, reason: "reason 99" });
    assert.deepEqual(eventOf({ ...fields, reason: -1 }), event);
  });

  it("tells which kind of segment was sent again by the state of its socket", () => {
    const segmentOf = (state: number) => {
      const event = eventOf({
        kind: "retransmit",
        state,
        retransmits: 2,
        srttUs: 40,
        cgroup: 17334,
        netns: 4026532177,
        ...ENDS_PRINTED,
      });
      return event?.kind === "retransmit" ? event.segment : undefined;
    };
    assert.deepEqual([1, 2, 3, 12].map(segmentOf), ["data", "syn", "syn", "syn-ack"]);
  });

  it("reads what bpftrace says at its end", () => {
    const totals = parseOutput('{"type":"map","data":{"@total":{"111":3,"0":1}}}', CONTEXT);
    assert.deepEqual(totals, { kind: "totals", totals: { ECONNREFUSED: 3, none: 1 } });
    assert.deepEqual(parseOutput('{"type":"map","data":{"@total":{"sent":3}}}', CONTEXT), {
      kind: "totals",
      totals: { sent: 3 },
    });
    assert.deepEqual(parseOutput('{"type":"map","data":{"@peak_bytes":{"20":96}}}', CONTEXT), {
      kind: "totals",
      totals: { "fd 20": 96 },
    });
    const histogram = '{"type":"hist","data":{"@latency_us":[{"min":8,"max":15,"count":2}]}}';
    assert.deepEqual(parseOutput(histogram, CONTEXT), {
      kind: "latencies",
      latencies: [{ fromUs: 8, toUs: 15, count: 2 }],
    });
    assert.deepEqual(parseOutput('{"type":"lost_events","data":{"events":7}}', CONTEXT), {
      kind: "lost",
      count: 7,
    });
    assert.deepEqual(parsePrinted({ kind: "ready" }), { kind: "ready" });
    assert.deepEqual(parseOutput("", CONTEXT), { kind: "nothing" });
  });

  it("refuses what no script of ours prints, and says why", () => {
    const reset = {
      kind: "reset",
      direction: "sent",
      reason: 1,
      state: 0,
      cgroup: 1,
      netns: 2,
      ...ENDS_PRINTED,
    };
    for (const [fields, message] of [
      [{ ...reset, extra: 1 }, 'unknown field "extra"'],
      [{ ...reset, kind: "other" }, 'unknown kind "other"'],
      [{ ...reset, direction: "up" }, '"direction" is none of sent, received'],
      [{ ...reset, cgroup: "1" }, '"cgroup" is no integer'],
      [{ ...reset, netns: -1 }, '"netns" is negative'],
      [{ ...reset, source: "10.1" }, 'Cannot read address "10.1": not an IP'],
    ] as const) {
      assert.throws(() => parsePrinted(fields), { message });
    }
    for (const line of [
      "Attaching 4 probes...",
      '{"type":"time","data":"12:00"}',
      '{"type":"map","data":{"@other":{"a":1}}}',
      '{"type":"hist","data":{"@other":[]}}',
      '{"type":"printf","data":3}',
      "[]",
    ]) {
      assert.throws(() => parseOutput(line, CONTEXT), SyntaxError, line);
    }
  });
});
