/** What an operator, Prometheus and the kubelet ask: three servers of the agent's own network. */
import { setTimeout as delay } from "node:timers/promises";
import fastify, { type FastifyInstance } from "fastify";
import { MeshError, reasonOf } from "#core/errors.ts";
import { formatSocketAddress, type IpAddress, type SocketAddress } from "#core/ip.ts";
import { formatLogLevels, type Loggers, type LogLevels, parseLogLevels } from "../log.ts";
import type { Readiness } from "./readiness.ts";

export interface AdminOptions {
  readonly adminAddress: SocketAddress;
  readonly statsAddress: SocketAddress;
  readonly readinessAddress: SocketAddress;
  readonly readiness: Readiness;
  readonly loggers: Loggers;
  readonly configDump: () => unknown;
  readonly metrics: { text(): Promise<string>; readonly contentType: string };
  /** Somebody asked the agent to end in an orderly way. */
  readonly onQuit: () => void;
  /** How long to wait for ports that another agent is about to give up. */
  readonly portWaitMs: number;
}

export interface AdminServers {
  /** Where they listen: a port that the kernel chose is known only here. */
  readonly addresses: {
    readonly admin: string;
    readonly stats: string;
    readonly readiness: string;
  };
  close(): Promise<void>;
}

const PORT_POLL_MS = 20;

export async function serveAdmin(options: AdminOptions): Promise<AdminServers> {
  const admin = fastify();
  addAdmin(admin, options);
  const stats = fastify();
  const readiness = fastify();
  for (const path of ["/metrics", "/stats/prometheus"]) {
    stats.get(path, async (_request, reply) => {
      return reply.type(options.metrics.contentType).send(await options.metrics.text());
    });
  }
  readiness.get("/healthz/ready", (_request, reply) => {
    const pending = options.readiness.pending();
    if (pending.length === 0) return reply.send("");
    return reply.code(500).send(`not ready, pending: ${pending.join(", ")}\n`);
  });
  const servers = [admin, stats, readiness];
  const deadlineMs = Date.now() + options.portWaitMs;
  const close = async () => {
    await Promise.all(servers.map((server) => server.close()));
  };
  try {
    return {
      addresses: {
        admin: await listen(admin, options.adminAddress, deadlineMs),
        stats: await listen(stats, options.statsAddress, deadlineMs),
        readiness: await listen(readiness, options.readinessAddress, deadlineMs),
      },
      close,
    };
  } catch (error) {
    await close();
    throw error;
  }
}

/** A host without IPv6 cannot listen on `[::]`; what was meant is every address. */
async function listen(
  server: FastifyInstance,
  address: SocketAddress,
  deadlineMs: number,
): Promise<string> {
  const { ip: host, port } = address;
  try {
    return await server.listen({ host, port });
  } catch (cause) {
    const isWithoutIpv6 = isErrno(cause, "EAFNOSUPPORT") || isErrno(cause, "EADDRNOTAVAIL");
    if (host === "::" && isWithoutIpv6) {
      return listen(server, { ip: "0.0.0.0" as IpAddress, port }, deadlineMs);
    }
    if (isErrno(cause, "EADDRINUSE") && Date.now() < deadlineMs) {
      await delay(PORT_POLL_MS);
      return listen(server, address, deadlineMs);
    }
    const attempt = `Cannot listen on "${formatSocketAddress(address)}"`;
    throw new MeshError("SETTINGS_INVALID", attempt, { cause });
  }
}

function isErrno(error: unknown, code: string): boolean {
  return error instanceof Error && "code" in error && error.code === code;
}

const PAGE = `<!doctype html>
<title>aquifer agent</title>
<h1>aquifer agent</h1>
<ul>
<li><a href="/config_dump">/config_dump</a>: what this agent knows and does
<li><a href="/logging">/logging</a>: log levels; change with POST /logging?level=info,access=off
<li>/quitquitquit: POST ends the agent in an orderly way
</ul>
`;

function addAdmin(server: FastifyInstance, options: AdminOptions): void {
  server.get("/", (_request, reply) => reply.type("text/html; charset=utf-8").send(PAGE));
  server.get("/config_dump", (_request, reply) =>
    reply
      .type("application/json; charset=utf-8")
      .send(JSON.stringify(options.configDump(), null, 2)),
  );
  server.get("/logging", () => describeLevels(options.loggers.levels));
  server.post<{ Querystring: Record<string, unknown> }>("/logging", (request, reply) => {
    const { level, reset } = request.query;
    try {
      if (reset !== undefined) options.loggers.reset();
      if (typeof level === "string") options.loggers.setLevels(parseLogLevels(level));
    } catch (error) {
      return reply.code(400).send(`Cannot set log levels: ${reasonOf(error)}\n`);
    }
    return reply.send(describeLevels(options.loggers.levels));
  });
  server.post("/quitquitquit", (_request, reply) => {
    options.onQuit();
    return reply.send("shutting down\n");
  });
}

function describeLevels(levels: LogLevels): string {
  return `current log level is ${formatLogLevels(levels)}\n`;
}
