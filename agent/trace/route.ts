/**
 * Traces over the agent's local API:
 *
 *   GET /v1/traces                       {"traces": [{"name", "tells"}]}
 *   GET /v1/trace/NAME?for=10s&pod=P&slow=100ms
 *       application/x-ndjson, one `TraceLine` a line, from the moment that the trace is attached.
 *       What fails before is an HTTP error like those of the other resources; what fails after is
 *       the last line. A client that hangs up ends the trace.
 */
import { statSync } from "node:fs";
import { PassThrough } from "node:stream";
import type { FastifyInstance } from "fastify";
import { parseDurationMs } from "#core/env.ts";
import { MeshError, reasonOf } from "#core/errors.ts";
import type { TraceLine, TraceSummary } from "#core/trace.ts";
import { DURATION_MS_DEFAULT, THIS_HOST, type TraceHost, type TraceWish } from "./prepare.ts";
import { findTrace, listTraces } from "./registry.ts";
import { runTrace } from "./run.ts";

export interface TraceRouteOptions {
  /**
   * Path of the network namespace of the pod that `pod=` names, in whatever way the API names
   * pods; undefined where there is none.
   */
  readonly findNetns: (pod: string) => string | undefined;
  readonly host?: TraceHost;
}

/** Each is a bpftrace process of some 100 MiB, and costs the whole node something. */
const TRACES_MAX = 4;
/** What a client may be behind, in bytes, before events are dropped. */
const BACKLOG_BYTES_MAX = 1024 * 1024;
const PARAMETERS = ["for", "pod", "slow"] as const;

type Parameters = { readonly [name in (typeof PARAMETERS)[number]]?: string };

/** Traces that run when `server` closes are ended. */
export function addTraceRoutes(server: FastifyInstance, options: TraceRouteOptions): void {
  const running = new Set<AbortController>();
  server.addHook("preClose", (done) => {
    for (const controller of running) controller.abort();
    done();
  });

  server.get("/v1/traces", () => ({
    traces: listTraces().map(({ name, tells }) => ({ name, tells })),
  }));

  server.get<{ Params: { name: string } }>("/v1/trace/:name", async (request, reply) => {
    const wish = parseWish(request.params.name, request.query, options.findNetns);
    if (running.size >= TRACES_MAX) {
      const reason = `${TRACES_MAX} traces are running already`;
      throw new MeshError("REQUEST_REFUSED", `Cannot trace "${wish.name}": ${reason}`);
    }
    const controller = new AbortController();
    running.add(controller);
    const abort = () => controller.abort();
    request.raw.socket.once("close", abort);
    const { lines, started } = streamTrace(wish, controller.signal, options.host ?? THIS_HOST);
    const release = () => {
      running.delete(controller);
      request.raw.socket.off("close", abort);
    };
    lines.once("close", release);
    lines.once("end", release);
    await started;
    // Kept alive, the connection would keep a server that closes.
    return reply.type("application/x-ndjson").header("connection", "close").send(lines);
  });
}

interface TraceStream {
  readonly lines: PassThrough;
  /** Rejects, and closes `lines`, where the trace does not come so far. */
  readonly started: Promise<void>;
}

function streamTrace(wish: TraceWish, signal: AbortSignal, host: TraceHost): TraceStream {
  const lines = new PassThrough();
  const backlog = { dropped: 0, droppedInAll: 0 };
  const { promise: started, resolve: begin, reject: refuse } = Promise.withResolvers<void>();
  const write = (line: TraceLine) => lines.write(`${JSON.stringify(line)}\n`);
  const offer = (line: TraceLine) => {
    if (lines.writableLength + lines.readableLength > BACKLOG_BYTES_MAX) {
      backlog.dropped += 1;
      backlog.droppedInAll += 1;
      return;
    }
    if (backlog.dropped > 0) {
      write({ type: "notice", notice: { kind: "dropped", count: backlog.dropped } });
      backlog.dropped = 0;
    }
    write(line);
  };
  const end = (line: TraceLine) => {
    begin();
    write(line);
    lines.end();
  };
  let isStarted = false;
  runTrace(
    {
      ...wish,
      signal,
      onEvent: (event) => offer({ type: "event", event }),
      onNotice: (notice) => {
        if (notice.kind === "started") {
          isStarted = true;
          begin();
        }
        offer({ type: "notice", notice });
      },
    },
    host,
  ).then(
    (summary) => end({ type: "summary", summary: withDropped(summary, backlog.droppedInAll) }),
    (error: unknown) => {
      if (isStarted) {
        end({ type: "error", error: reasonOf(error) });
        return;
      }
      lines.destroy();
      refuse(error);
    },
  );
  return { lines, started };
}

/** Lines that the client was too slow for: nearly all of them events. */
function withDropped(summary: TraceSummary, count: number): TraceSummary {
  return {
    ...summary,
    events: Math.max(0, summary.events - count),
    dropped: summary.dropped + count,
  };
}

function parseWish(
  name: string,
  query: unknown,
  findNetns: TraceRouteOptions["findNetns"],
): TraceWish {
  const trace = findTrace(name);
  const refuse = (reason: string): never => {
    throw new MeshError("REQUEST_REFUSED", `Cannot trace "${name}": ${reason}`);
  };
  const { for: duration, pod, slow } = parseParameters(query, refuse);
  const durationIn = (parameter: string, text: string): number => {
    try {
      return parseDurationMs(text);
    } catch (error) {
      return refuse(`"${parameter}=${text}": ${reasonOf(error)}`);
    }
  };
  return {
    name: trace.name,
    durationMs: duration === undefined ? DURATION_MS_DEFAULT : durationIn("for", duration),
    ...(pod !== undefined && {
      filter: { netns: statSync(findNetns(pod) ?? refuse(`there is no pod "${pod}"`)).ino },
    }),
    ...(slow !== undefined && { slowHandshakeUs: durationIn("slow", slow) * 1000 }),
  };
}

function parseParameters(query: unknown, refuse: (reason: string) => never): Parameters {
  const given: Readonly<Record<string, unknown>> = { ...(query as object) };
  for (const [name, value] of Object.entries(given)) {
    if (!PARAMETERS.some((known) => known === name)) refuse(`unknown parameter "${name}"`);
    if (typeof value !== "string") refuse(`"${name}" is given more than once`);
  }
  // Each is one of them, and a string.
  return given as Parameters;
}
