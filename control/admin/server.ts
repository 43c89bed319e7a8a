/** What control tells about itself: whether it is ready, what is wrong with objects, metrics. */
import { type FastifyInstance, fastify } from "fastify";
import { MeshError } from "#core/errors.ts";
import { formatSocketAddress, parseIp, type SocketAddress } from "#core/ip.ts";
import type { StandingProblem } from "./problem-log.ts";

export interface AdminOptions {
  readonly address: SocketAddress;
  /** What has to happen before nodes can be served; none where control is ready. */
  readonly pending: () => readonly string[];
  readonly problems: () => readonly StandingProblem[];
  /** Resolves once what changed before the call is among the problems, if it is one. */
  readonly catchUp: () => Promise<void>;
  /** The nodes that are subscribed, and whether each has said that it has all there is. */
  readonly nodes: () => ReadonlyMap<string, boolean>;
  /** In Prometheus' text format. */
  readonly metrics: () => Promise<{ readonly contentType: string; readonly text: string }>;
}

export interface Admin {
  readonly address: SocketAddress;
  close(): Promise<void>;
}

/** @throws MeshError `SETTINGS_INVALID` where the address cannot be listened on */
export async function startAdmin(options: AdminOptions): Promise<Admin> {
  // A client that keeps its connection must not keep control from stopping.
  const server = fastify({ forceCloseConnections: true });
  server.get("/healthz/ready", async (_request, reply) => {
    const pending = options.pending();
    if (pending.length === 0) return "ready\n";
    return reply.code(503).send(`not ready: ${pending.join(", ")}\n`);
  });
  server.get<{ Querystring: { fresh?: boolean } }>(
    "/problems",
    { schema: { querystring: PROBLEMS_QUERY } },
    async (request) => {
      if (request.query.fresh) await options.catchUp();
      return options.problems().map(toJson);
    },
  );
  server.get("/nodes", async () => {
    return [...options.nodes()].map(([node, current]): NodeJson => ({ node, current }));
  });
  server.get("/metrics", async (_request, reply) => {
    const { contentType, text } = await options.metrics();
    return reply.type(contentType).send(text);
  });
  const address = await listen(server, options.address);
  return { address, close: () => server.close() };
}

const PROBLEMS_QUERY = { type: "object", properties: { fresh: { type: "boolean" } } };

/** What `/nodes` lists, as JSON. */
export interface NodeJson {
  readonly node: string;
  readonly current: boolean;
}

/** What `/problems` lists, as JSON. */
export interface ProblemJson {
  readonly file: string;
  readonly line: number;
  readonly object: string | null;
  readonly field: string | null;
  readonly reason: string;
  readonly effect: string;
  readonly since: string;
  readonly lastGood: boolean;
}

function toJson({ problem, sinceMs }: StandingProblem): ProblemJson {
  return {
    file: problem.origin.file,
    line: problem.origin.line,
    object: problem.object ?? null,
    field: problem.field ?? null,
    reason: problem.reason,
    effect: problem.effect,
    since: new Date(sinceMs).toISOString(),
    lastGood: problem.effect === "lastGood",
  };
}

async function listen(server: FastifyInstance, address: SocketAddress): Promise<SocketAddress> {
  try {
    return await listenOn(server, address);
  } catch (error) {
    const code = error instanceof Error && "code" in error ? error.code : undefined;
    const isWithoutIpv6 = code === "EAFNOSUPPORT" || code === "EADDRNOTAVAIL";
    if (address.ip === "::" && isWithoutIpv6) {
      return await listenOn(server, { ...address, ip: parseIp("0.0.0.0") });
    }
    const message = `Cannot listen on ${formatSocketAddress(address)}: ${String(code)}`;
    throw new MeshError("SETTINGS_INVALID", message, { cause: error });
  }
}

async function listenOn(server: FastifyInstance, address: SocketAddress): Promise<SocketAddress> {
  await server.listen({ host: address.ip, port: address.port });
  const bound = server.server.address();
  const port = typeof bound === "object" && bound ? bound.port : address.port;
  return { ip: address.ip, port };
}
