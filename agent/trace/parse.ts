/**
 * What bpftrace prints with `-f json`, line by line. Everything that a script of ours cannot have
 * printed is refused with a reason, and the runner reports it.
 */
import { constants } from "node:os";
import { MeshError, reasonOf } from "#core/errors.ts";
import { parseIp, type SocketAddress } from "#core/ip.ts";
import type { LatencyBucket, TraceEvent } from "#core/trace.ts";

export type Output =
  | { readonly kind: "ready" }
  | { readonly kind: "event"; readonly event: TraceEvent }
  | { readonly kind: "totals"; readonly totals: Readonly<Record<string, number>> }
  | { readonly kind: "latencies"; readonly latencies: readonly LatencyBucket[] }
  | { readonly kind: "lost"; readonly count: number }
  /** bpftrace's own talk, and blank lines. */
  | { readonly kind: "nothing" };

export interface ParseContext {
  readonly nowMs: number;
  /** Names of the running kernel's reset reasons. */
  readonly resetReasons: ReadonlyMap<number, string>;
}

/** @throws SyntaxError or MeshError where the line is none of ours; the message says why */
export function parseOutput(line: string, context: ParseContext): Output {
  if (line.trim() === "") return { kind: "nothing" };
  const { type, data } = objectIn(JSON.parse(line));
  switch (type) {
    case "printf":
      if (typeof data !== "string") throw new SyntaxError("what is printed is no text");
      return parsePrinted(data, context);
    case "map":
      return parseTotals(objectIn(data));
    case "hist":
      return parseLatencies(objectIn(data));
    case "lost_events":
      return { kind: "lost", count: new Fields(objectIn(data)).count("events") };
    case "attached_probes":
      return { kind: "nothing" };
    default:
      throw new SyntaxError(`unknown type ${JSON.stringify(type)}`);
  }
}

function objectIn(value: unknown): Readonly<Record<string, unknown>> {
  if (typeof value === "object" && value !== null && !Array.isArray(value)) return { ...value };
  throw new SyntaxError("expected an object");
}

/**
 * A line of a script. Its last field may be text that a process chose, quotes and all, so it is cut
 * off before the rest is read: all that stands before it is the script's own.
 */
function parsePrinted(text: string, context: ParseContext): Output {
  const [, head, key, chosen] = /^(\{.*?),"(comm|map)":"(.*)"\}\n$/s.exec(text) ?? [];
  const json = objectIn(JSON.parse(head === undefined ? text : `${head}}`));
  const fields = new Fields(key === undefined ? json : { ...json, [key]: plainText(chosen ?? "") });
  const kind = fields.text("kind");
  if (kind === "ready") return { kind: "ready" };
  const event = eventOf(kind, fields, context);
  fields.end();
  return { kind: "event", event };
}

/** bpftrace 0.17 writes the byte 0xc3 as "\uffffffc3". */
function plainText(text: string): string {
  return text.replace(/\uffffff[0-9a-f]{2}/g, "\ufffd");
}

function eventOf(kind: string, fields: Fields, { nowMs, resetReasons }: ParseContext): TraceEvent {
  const atMs = nowMs;
  const owner = () => ({ atMs, netns: fields.count("netns"), cgroup: fields.count("cgroup") });
  const process = () => ({ pid: fields.count("pid"), comm: fields.text("comm") });
  const ends = () => ({
    source: fields.address("source"),
    destination: fields.address("destination"),
  });
  switch (kind) {
    case "refused": {
      const stage = fields.oneOf("stage", ["connect", "handshake"]);
      return {
        kind,
        ...owner(),
        ...process(),
        stage,
        error: errorName(fields.count("errno")),
        protocol: PROTOCOLS.get(fields.count("protocol")) ?? "other",
        ...(fields.has("asked") && { asked: fields.address("asked") }),
        ...(stage === "handshake" && ends()),
      };
    }
    case "reset": {
      const reason = fields.integer("reason");
      return {
        kind,
        ...owner(),
        direction: fields.oneOf("direction", ["sent", "received"]),
        ...(reason >= 0 && { reason: resetReasons.get(reason) ?? `reason ${reason}` }),
        state: stateName(fields.count("state")),
        ...ends(),
      };
    }
    case "slow-handshake":
      return { kind, ...owner(), ...process(), latencyUs: fields.count("latencyUs"), ...ends() };
    case "retransmit": {
      const state = stateName(fields.count("state"));
      return {
        kind,
        ...owner(),
        segment: SEGMENTS.get(state) ?? "data",
        state,
        retransmits: fields.count("retransmits"),
        srttUs: fields.count("srttUs"),
        ...ends(),
      };
    }
    case "ring-buffer":
      return {
        kind,
        atMs,
        map: fields.text("map"),
        fd: fields.count("fd"),
        sizeBytes: fields.count("sizeBytes"),
        waitingBytes: fields.count("waitingBytes"),
        peakBytes: fields.count("peakBytes"),
        writtenBytes: fields.count("writtenBytes"),
      };
    default:
      throw new SyntaxError(`unknown kind "${kind}"`);
  }
}

/** The fields of one object, each of which must be asked for. */
class Fields {
  readonly #values: ReadonlyMap<string, unknown>;
  readonly #unread: Set<string>;

  constructor(values: Readonly<Record<string, unknown>>) {
    this.#values = new Map(Object.entries(values));
    this.#unread = new Set(this.#values.keys());
  }

  has(name: string): boolean {
    return this.#values.has(name);
  }

  integer(name: string): number {
    const value = this.#take(name);
    if (typeof value === "number" && Number.isSafeInteger(value)) return value;
    throw new SyntaxError(`"${name}" is no integer`);
  }

  /** An integer from 0. */
  count(name: string): number {
    const value = this.integer(name);
    if (value >= 0) return value;
    throw new SyntaxError(`"${name}" is negative`);
  }

  text(name: string): string {
    const value = this.#take(name);
    if (typeof value === "string") return value;
    throw new SyntaxError(`"${name}" is no text`);
  }

  oneOf<Word extends string>(name: string, words: readonly Word[]): Word {
    const value = this.text(name);
    const word = words.find((candidate) => candidate === value);
    if (word !== undefined) return word;
    throw new SyntaxError(`"${name}" is none of ${words.join(", ")}`);
  }

  /** `name` and the port beside it. */
  address(name: string): SocketAddress {
    return { ip: parseIp(this.text(name)), port: this.count(`${name}Port`) };
  }

  /** @throws SyntaxError where a field has not been read */
  end(): void {
    const [unknown] = this.#unread;
    if (unknown !== undefined) throw new SyntaxError(`unknown field "${unknown}"`);
  }

  #take(name: string): unknown {
    this.#unread.delete(name);
    return this.#values.get(name);
  }
}

/** `{"@total": {"111": 3}}`: the maps that our scripts leave to bpftrace to print at its end. */
function parseTotals(data: Readonly<Record<string, unknown>>): Output {
  const [[map = "", values] = []] = Object.entries(data);
  if (map !== "@total" && map !== "@peak_bytes") throw new SyntaxError(`unknown map "${map}"`);
  const fields = new Fields(objectIn(values));
  const totals = Object.keys(objectIn(values)).map((key) => [
    totalName(map, key),
    fields.count(key),
  ]);
  return { kind: "totals", totals: Object.fromEntries(totals) };
}

/** Only refused connects are counted by number: their errno. */
function totalName(map: "@total" | "@peak_bytes", key: string): string {
  if (map === "@peak_bytes") return `fd ${key}`;
  return /^\d+$/.test(key) ? errorName(Number(key)) : key;
}

function parseLatencies(data: Readonly<Record<string, unknown>>): Output {
  const buckets = data["@latency_us"];
  if (!Array.isArray(buckets)) throw new SyntaxError("unknown histogram");
  const latencies = buckets.map((bucket) => {
    const fields = new Fields(objectIn(bucket));
    return {
      fromUs: fields.count("min"),
      toUs: fields.count("max"),
      count: fields.count("count"),
    };
  });
  return { kind: "latencies", latencies };
}

const PROTOCOLS: ReadonlyMap<number, "tcp" | "udp"> = new Map([
  [6, "tcp"],
  [17, "udp"],
  // MPTCP: plain TCP with options, to whoever wants to know what was refused.
  [262, "tcp"],
]);

const SEGMENTS: ReadonlyMap<string, "syn" | "syn-ack"> = new Map([
  ["SYN_SENT", "syn"],
  ["SYN_RECV", "syn"],
  ["NEW_SYN_RECV", "syn-ack"],
]);

/** @see include/net/tcp_states.h; 0 is what tcp_send_reset has where there is no socket */
const TCP_STATES = [
  "none",
  "ESTABLISHED",
  "SYN_SENT",
  "SYN_RECV",
  "FIN_WAIT1",
  "FIN_WAIT2",
  "TIME_WAIT",
  "CLOSE",
  "CLOSE_WAIT",
  "LAST_ACK",
  "LISTEN",
  "CLOSING",
  "NEW_SYN_RECV",
  "BOUND_INACTIVE",
] as const;

function stateName(state: number): string {
  return TCP_STATES[state] ?? `state ${state}`;
}

const ERROR_NAMES: ReadonlyMap<number, string> = new Map(
  // EAGAIN and EWOULDBLOCK are one number: the first name stays.
  Object.entries(constants.errno)
    .map(([name, errno]) => [errno, name] as const)
    .reverse(),
);

function errorName(errno: number): string {
  return errno === 0 ? "none" : (ERROR_NAMES.get(errno) ?? `errno ${errno}`);
}

/** Why a line was refused, for the notice that reports it. */
export function refusalOf(thrown: unknown): string {
  if (thrown instanceof SyntaxError || thrown instanceof MeshError) return reasonOf(thrown);
  throw thrown;
}
