import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { parseIp } from "#core/ip.ts";
import type { RefusedConnect, TraceEvent, TraceName, TraceSummary } from "#core/trace.ts";
import { formatTraceHead, formatTraceLine } from "./trace.ts";

const OWNER = { atMs: Date.parse("2026-11-21T12:00:01.234Z"), netns: 4026532177, cgroup: 17334 };
const SOURCE = { ip: parseIp("10.1.1.2"), port: 45544 };
const DESTINATION = { ip: parseIp("fd00:2::2"), port: 80 };

const REFUSED: RefusedConnect = {
  kind: "refused",
  ...OWNER,
  stage: "connect",
  error: "EPERM",
  protocol: "tcp",
  pid: 12,
  comm: "curl",
  asked: { ip: parseIp("10.96.0.10"), port: 80 },
};

const SUMMARY: TraceSummary = {
  name: "handshakes",
  durationMs: 10_000,
  endedBy: "duration",
  events: 2,
  dropped: 0,
  filtered: 0,
  lost: 0,
  unparsed: 0,
  totals: {},
  latencies: [],
  isComplete: true,
};

/** Cells of the row, which stand two spaces or more apart. */
function cells(name: TraceName, event: TraceEvent): readonly string[] {
  const { to, text } = formatTraceLine(name, { type: "event", event });
  assert.equal(to, "stdout");
  return text.trimEnd().split(/ {2,}/);
}

describe("formatTraceLine", () => {
  it("puts an event below the head of its trace, a column each", () => {
    const head = formatTraceHead("refused-connects");
    const { text } = formatTraceLine("refused-connects", { type: "event", event: REFUSED });
    assert.equal(
      head + text,
      `TIME          ERROR         STAGE      PROCESS                  ASKED                  \
DESTINATION            NETNS       CGROUP
12:00:01.234  EPERM         connect    curl[12]                 10.96.0.10:80          \
-                      4026532177  17334
`,
    );
  });

  it("has a cell for every column of every trace", () => {
    const ends = { source: SOURCE, destination: DESTINATION };
    const process = { pid: 1, comm: "x" };
    const { atMs } = OWNER;
    const events: Readonly<Record<TraceName, TraceEvent>> = {
      "refused-connects": REFUSED,
      resets: { kind: "reset", ...OWNER, direction: "received", state: "ESTABLISHED", ...ends },
      handshakes: { kind: "slow-handshake", ...OWNER, ...process, latencyUs: 1_500_000, ...ends },
      retransmits: {
        kind: "retransmit",
        ...OWNER,
        segment: "data",
        state: "ESTABLISHED",
        retransmits: 3,
        srttUs: 1_250,
        ...ends,
      },
      "ring-buffers": {
        kind: "ring-buffer",
        atMs,
        map: "flows",
        fd: 20,
        sizeBytes: 4096,
        waitingBytes: 0,
        peakBytes: 1024,
        writtenBytes: 64,
      },
    };
    for (const [name, event] of Object.entries(events) as [TraceName, TraceEvent][]) {
      const columns = formatTraceHead(name).trimEnd().split(/ {2,}/);
      assert.equal(cells(name, event).length, columns.length, name);
    }
    assert.ok(cells("retransmits", events.retransmits).includes("1.3 ms"));
    assert.ok(cells("handshakes", events.handshakes).includes("1.50 s"));
    assert.ok(cells("ring-buffers", events["ring-buffers"]).includes("25"));
  });

  it("lets no process name of its own choice reach the terminal as a command", () => {
    const text = cells("refused-connects", { ...REFUSED, comm: "a\u001b[2J\n\u009b" }).join(" ");
    assert.match(text, /a\?\[2J\?\?\[12\]/);
  });

  it("keeps notices and errors off standard output", () => {
    assert.deepEqual(
      formatTraceLine("resets", { type: "notice", notice: { kind: "lost", count: 7 } }),
      { to: "stderr", text: "7 events are lost: the kernel had no room for them\n" },
    );
    assert.deepEqual(formatTraceLine("resets", { type: "error", error: "Cannot trace" }), {
      to: "stderr",
      text: "Cannot trace\n",
    });
  });

  it("sums up what was seen, what was not, and how long handshakes took", () => {
    const summary = {
      ...SUMMARY,
      dropped: 3,
      totals: { established: 4, failed: 1 },
      latencies: [
        { fromUs: 512, toUs: 1023, count: 4 },
        { fromUs: 1024, toUs: 2047, count: 1 },
      ],
    };
    const { to, text } = formatTraceLine("handshakes", { type: "summary", summary });
    assert.equal(to, "stdout");
    assert.equal(
      text,
      `512 us to 1.0 ms                 4  ########################################
1.0 ms to 2.0 ms                 1  ##########
10.0 s: 2 events, 3 dropped
counted in the kernel: 4 established, 1 failed
`,
    );
  });

  it("says so where the kernel's counts are missing", () => {
    const summary = { ...SUMMARY, isComplete: false };
    const { text } = formatTraceLine("handshakes", { type: "summary", summary });
    assert.match(text, /^10\.0 s: 2 events\nbpftrace did not end in time/);
  });
});
