/**
 * A trace as text, line by line while it runs: columns have fixed widths, since nobody knows yet
 * how wide the widest cell will be. A cell that is wider pushes the others of its line.
 */
import { formatSocketAddress, type SocketAddress } from "#core/ip.ts";
import type {
  LatencyBucket,
  TraceEvent,
  TraceLine,
  TraceName,
  TraceNotice,
  TraceSummary,
} from "#core/trace.ts";

export interface RenderedTraceLine {
  /** Notices and errors are not what was asked for: they go to standard error. */
  readonly to: "stdout" | "stderr";
  readonly text: string;
}

type Column = readonly [title: string, width: number];

const TIME: Column = ["TIME", 12];
const PROCESS: Column = ["PROCESS", 23];
const SOURCE: Column = ["SOURCE", 21];
const DESTINATION: Column = ["DESTINATION", 21];
const NETNS: Column = ["NETNS", 10];
const CGROUP: Column = ["CGROUP", 6];

const COLUMNS: Readonly<Record<TraceName, readonly Column[]>> = {
  "refused-connects": [
    TIME,
    ["ERROR", 12],
    ["STAGE", 9],
    PROCESS,
    ["ASKED", 21],
    DESTINATION,
    NETNS,
    CGROUP,
  ],
  resets: [
    TIME,
    ["DIRECTION", 9],
    ["REASON", 24],
    ["STATE", 12],
    SOURCE,
    DESTINATION,
    NETNS,
    CGROUP,
  ],
  handshakes: [TIME, ["LATENCY", 10], PROCESS, SOURCE, DESTINATION, NETNS, CGROUP],
  retransmits: [
    TIME,
    ["SEGMENT", 7],
    ["STATE", 12],
    ["COUNT", 5],
    ["RTT", 10],
    SOURCE,
    DESTINATION,
    NETNS,
    CGROUP,
  ],
  "ring-buffers": [
    TIME,
    ["MAP", 15],
    ["SIZE", 10],
    ["WAITING", 10],
    ["PEAK", 10],
    ["PEAK %", 6],
    ["WRITTEN/S", 10],
  ],
};

export function formatTraceHead(name: TraceName): string {
  return row(
    name,
    COLUMNS[name].map(([title]) => title),
  );
}

export function formatTraceLine(name: TraceName, line: TraceLine): RenderedTraceLine {
  switch (line.type) {
    case "event":
      return { to: "stdout", text: row(name, cellsOf(line.event)) };
    case "notice":
      return { to: "stderr", text: `${formatNotice(line.notice)}\n` };
    case "summary":
      return { to: "stdout", text: formatSummary(line.summary) };
    case "error":
      return { to: "stderr", text: `${printable(line.error)}\n` };
  }
}

function row(name: TraceName, cells: readonly string[]): string {
  const padded = COLUMNS[name].map(([, width], index) => (cells[index] ?? "").padEnd(width));
  return `${padded.join("  ").trimEnd()}\n`;
}

function cellsOf(event: TraceEvent): readonly string[] {
  const time = new Date(event.atMs).toISOString().slice(11, 23);
  switch (event.kind) {
    case "refused": {
      const { error, stage, asked, destination } = event;
      const ends = [end(asked), end(destination)];
      return [time, error, stage, processOf(event), ...ends, ...ownerOf(event)];
    }
    case "reset": {
      const { direction, reason = "-", state, source, destination } = event;
      return [time, direction, reason, state, end(source), end(destination), ...ownerOf(event)];
    }
    case "slow-handshake": {
      const { latencyUs, source, destination } = event;
      const ends = [end(source), end(destination)];
      return [time, formatUs(latencyUs), processOf(event), ...ends, ...ownerOf(event)];
    }
    case "retransmit": {
      const { segment, state, retransmits, srttUs, source, destination } = event;
      const facts = [segment, state, `${retransmits}`, srttUs === 0 ? "-" : formatUs(srttUs)];
      return [time, ...facts, end(source), end(destination), ...ownerOf(event)];
    }
    case "ring-buffer": {
      const { map, sizeBytes, waitingBytes, peakBytes, writtenBytes } = event;
      const share = `${Math.round((100 * peakBytes) / sizeBytes)}`;
      const bytes = [sizeBytes, waitingBytes, peakBytes].map(String);
      return [time, printable(map), ...bytes, share, `${writtenBytes}`];
    }
  }
}

function ownerOf({ netns, cgroup }: { readonly netns: number; readonly cgroup: number }) {
  return [String(netns), String(cgroup)];
}

function end(address: SocketAddress | undefined): string {
  return address === undefined ? "-" : formatSocketAddress(address);
}

function processOf({ pid, comm }: { readonly pid: number; readonly comm: string }): string {
  return pid === 0 ? "-" : `${printable(comm)}[${pid}]`;
}

/** A process's name is its own choice, and could hold what a terminal obeys. */
function printable(text: string): string {
  return text.replace(/\p{Cc}/gu, "?");
}

function formatUs(us: number): string {
  if (us < 1_000) return `${us} us`;
  return us < 1_000_000 ? `${(us / 1_000).toFixed(1)} ms` : `${(us / 1_000_000).toFixed(2)} s`;
}

function formatNotice(notice: TraceNotice): string {
  switch (notice.kind) {
    case "started":
      return "tracing";
    case "dropped":
      return `${notice.count} events are left out: too many at once`;
    case "lost":
      return `${notice.count} events are lost: the kernel had no room for them`;
    case "unparsed":
      return `cannot read "${printable(notice.line)}": ${printable(notice.reason)}`;
    case "warning":
      return `bpftrace says: ${printable(notice.text)}`;
  }
}

function formatSummary(summary: TraceSummary): string {
  const { totals, latencies, isComplete } = summary;
  const counted = Object.entries(totals).map(([name, count]) => `${count} ${name}`);
  const shown = ["events", "filtered", "dropped", "lost", "unparsed"] as const;
  const read = shown
    .filter((name) => name === "events" || summary[name] > 0)
    .map((name) => `${summary[name]} ${name}`);
  return [
    ...latencies.map((bucket) => formatBucket(bucket, latencies)),
    `${(summary.durationMs / 1000).toFixed(1)} s: ${read.join(", ")}`,
    ...(counted.length > 0 ? [`counted in the kernel: ${counted.join(", ")}`] : []),
    ...(isComplete ? [] : ["bpftrace did not end in time: the kernel's counts are missing"]),
    "",
  ].join("\n");
}

const BAR_COLUMNS = 40;

function formatBucket(
  { fromUs, toUs, count }: LatencyBucket,
  all: readonly LatencyBucket[],
): string {
  const most = Math.max(...all.map((bucket) => bucket.count));
  const bar = "#".repeat(Math.round((BAR_COLUMNS * count) / Math.max(1, most)));
  const range = `${formatUs(fromUs)} to ${formatUs(toUs + 1)}`;
  return `${range.padEnd(24)}  ${String(count).padStart(8)}  ${bar}`.trimEnd();
}
