/** Which traces there are, and what each asks of the kernel. */
import { MeshError } from "#core/errors.ts";
import { TRACE_NAMES, type TraceName } from "#core/trace.ts";
import type { TracepointFormats } from "./tracefs.ts";

/** One script, and the tracepoints and fields it takes for it to run. */
export interface TraceVariant {
  /** In bpf/trace/. */
  readonly script: string;
  readonly needs: readonly TracepointNeed[];
}

export interface TracepointNeed {
  readonly tracepoint: string;
  /** Size in bytes of each field, where another size is another meaning; else 0. */
  readonly fields: Readonly<Record<string, number>>;
}

export interface TraceDefinition {
  readonly name: TraceName;
  readonly tells: string;
  /** Best first; the first that the kernel can run is taken. */
  readonly variants: readonly [TraceVariant, ...TraceVariant[]];
  /** What may choose its events: "addresses" not where the kernel sums up, which sees none. */
  readonly filters: readonly ("netns" | "cgroup" | "addresses")[];
}

const SOCKET_STATE: TracepointNeed = {
  tracepoint: "sock:inet_sock_set_state",
  fields: {
    skaddr: 0,
    oldstate: 0,
    newstate: 0,
    protocol: 0,
    sport: 0,
    dport: 0,
    saddr_v6: 16,
    daddr_v6: 16,
  },
};
const SEGMENT_FIELDS = { skaddr: 0, sport: 0, dport: 0, saddr_v6: 16, daddr_v6: 16 } as const;
const RECEIVED_RESET: TracepointNeed = {
  tracepoint: "tcp:tcp_receive_reset",
  fields: SEGMENT_FIELDS,
};

const TRACES: Readonly<Record<TraceName, TraceDefinition>> = {
  "refused-connects": {
    name: "refused-connects",
    tells: "connection attempts that failed: error, process, where it wanted to go",
    variants: [
      {
        script: "refused-connects.bt",
        needs: [
          { tracepoint: "syscalls:sys_enter_connect", fields: { fd: 0, uservaddr: 0 } },
          { tracepoint: "syscalls:sys_exit_connect", fields: { ret: 0 } },
          SOCKET_STATE,
        ],
      },
    ],
    filters: ["netns", "cgroup", "addresses"],
  },
  resets: {
    name: "resets",
    tells: "TCP resets, sent with the kernel's reason and received",
    variants: [
      {
        script: "resets.bt",
        needs: [
          {
            tracepoint: "tcp:tcp_send_reset",
            fields: { skbaddr: 0, skaddr: 0, state: 0, reason: 0, saddr: 28, daddr: 28 },
          },
          RECEIVED_RESET,
        ],
      },
      {
        script: "resets-5.15.bt",
        needs: [
          { tracepoint: "tcp:tcp_send_reset", fields: { ...SEGMENT_FIELDS, state: 0 } },
          RECEIVED_RESET,
        ],
      },
    ],
    filters: ["netns", "cgroup", "addresses"],
  },
  handshakes: {
    name: "handshakes",
    tells: "how long TCP handshakes take: a histogram, and each slow one",
    variants: [{ script: "handshakes.bt", needs: [SOCKET_STATE] }],
    filters: ["netns", "cgroup"],
  },
  retransmits: {
    name: "retransmits",
    tells: "TCP segments that are sent again",
    variants: [
      {
        script: "retransmits.bt",
        needs: [
          { tracepoint: "tcp:tcp_retransmit_skb", fields: { ...SEGMENT_FIELDS, state: 0 } },
          { tracepoint: "tcp:tcp_retransmit_synack", fields: SEGMENT_FIELDS },
        ],
      },
    ],
    filters: ["netns", "cgroup", "addresses"],
  },
  "ring-buffers": {
    name: "ring-buffers",
    tells: "how full the agent's own BPF ring buffers get",
    variants: [
      {
        script: "ring-buffers.bt",
        needs: [{ tracepoint: "syscalls:sys_enter_epoll_pwait", fields: {} }],
      },
    ],
    filters: [],
  },
};

export function listTraces(): readonly TraceDefinition[] {
  return TRACE_NAMES.map((name) => TRACES[name]);
}

/** @throws MeshError `REQUEST_REFUSED` where there is no such trace */
export function findTrace(name: string): TraceDefinition {
  const known = TRACE_NAMES.find((candidate) => candidate === name);
  if (known !== undefined) return TRACES[known];
  const reason = `it is none of ${TRACE_NAMES.join(", ")}`;
  throw new MeshError("REQUEST_REFUSED", `Cannot trace "${name}": ${reason}`);
}

export function tracepointsOf({ variants }: TraceDefinition): readonly string[] {
  return [...new Set(variants.flatMap(({ needs }) => needs.map(({ tracepoint }) => tracepoint)))];
}

/**
 * The best variant for a kernel.
 *
 * @throws MeshError `KERNEL_UNSUPPORTED`, which names what the least demanding variant lacks
 */
export function chooseVariant(
  { name, variants }: TraceDefinition,
  formats: TracepointFormats,
): TraceVariant {
  const lacking = variants.map(({ needs }) => needs.flatMap((need) => whatLacks(need, formats)));
  const chosen = variants.find((_variant, index) => lacking[index]?.length === 0);
  if (chosen) return chosen;
  const reason = `this kernel has no ${lacking.at(-1)?.join(", ")}`;
  throw new MeshError("KERNEL_UNSUPPORTED", `Cannot trace "${name}": ${reason}`);
}

function whatLacks(
  { tracepoint, fields }: TracepointNeed,
  formats: TracepointFormats,
): readonly string[] {
  const format = formats.get(tracepoint);
  if (!format) return [`tracepoint ${tracepoint}`];
  return Object.entries(fields).flatMap(([field, bytes]) => {
    const found = format.fields.get(field);
    if (found === undefined) return [`field ${field} of ${tracepoint}`];
    return bytes === 0 || bytes === found
      ? []
      : [`field ${field} of ${bytes} bytes in ${tracepoint}`];
  });
}
