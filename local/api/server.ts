/** The runtime's API: HTTP and JSON on a unix socket that only root may use. */
import { chmod } from "node:fs/promises";
import fastify, { type FastifyInstance } from "fastify";
import { MeshError, reasonOf } from "#core/errors.ts";
import type { AgentUpgrade, ApplyAnswer, ExecAnswer } from "#core/local-api.ts";
import { nameOfObject } from "../object/object.ts";
import { readFiles } from "../object/store.ts";
import type { Runtime } from "../runtime.ts";
import { statusOf } from "../status.ts";
import { findContainer } from "./find-pod.ts";
import { openLogStream } from "./log-stream.ts";

export interface ApiOptions {
  readonly runtime: Runtime;
  readonly isSettled: () => boolean;
  readonly onDown: () => void;
}

/** Objects come whole in one request; a megabyte is a lot of YAML. */
const BODY_BYTES_MAX = 8 * 1024 * 1024;

const text = { type: "string", minLength: 1 } as const;
const FILES = {
  type: "array",
  items: {
    type: "object",
    required: ["path", "text"],
    additionalProperties: false,
    properties: { path: text, text: { type: "string" } },
  },
} as const;
const POD = { namespace: text, pod: text, container: text } as const;

interface FilesBody {
  readonly files: readonly { readonly path: string; readonly text: string }[];
}

interface DeleteBody extends Partial<FilesBody> {
  readonly objects?: readonly {
    readonly kind: string;
    readonly namespace: string;
    readonly name: string;
  }[];
}

interface PodQuery {
  readonly namespace: string;
  readonly pod: string;
  readonly container?: string;
}

export async function serveApi(options: ApiOptions): Promise<FastifyInstance> {
  const server = fastify({
    bodyLimit: BODY_BYTES_MAX,
    forceCloseConnections: true,
    ajv: { customOptions: { removeAdditional: false, coerceTypes: "array" } },
  });
  server.setErrorHandler((error, _request, reply) => {
    const isRefusal = error instanceof MeshError && error.side === "downstream";
    const status = isRefusal ? 400 : errorStatus(error);
    void reply.status(status).send({ error: reasonOf(error) });
  });
  addObjectRoutes(server, options);
  addPodRoutes(server, options);
  server.get("/v1/status", () => statusOf(options.runtime, options.isSettled()));
  server.post<{ Body: { nodes?: readonly string[] } }>(
    "/v1/upgrade",
    { schema: { body: { type: "object", properties: { nodes: { type: "array", items: text } } } } },
    async (request) => {
      const { cluster } = options.runtime;
      const upgrades: AgentUpgrade[] = [];
      // One after the other, as a cluster would: a bad version shows on the first node.
      for (const node of request.body.nodes ?? cluster.nodes.map(({ name }) => name)) {
        upgrades.push(await cluster.upgradeAgent(node));
      }
      return { upgrades };
    },
  );
  server.post("/v1/down", (_request, reply) => {
    options.onDown();
    return reply.status(202).send({});
  });
  const path = options.runtime.names.apiSocket;
  await server.listen({ path });
  await chmod(path, 0o600);
  return server;
}

function errorStatus(error: unknown): number {
  const status: unknown = error instanceof Error ? Reflect.get(error, "statusCode") : undefined;
  return typeof status === "number" ? status : 500;
}

function addObjectRoutes(server: FastifyInstance, { runtime }: ApiOptions): void {
  const files = { type: "object", required: ["files"], properties: { files: FILES } };
  server.post<{ Body: FilesBody }>("/v1/apply", { schema: { body: files } }, async (request) => {
    const { changes, problems } = await runtime.apply(request.body.files);
    return { changes, problems } satisfies ApplyAnswer;
  });

  const object = {
    type: "object",
    required: ["kind", "namespace", "name"],
    properties: { kind: text, namespace: { type: "string" }, name: text },
  };
  const toDelete = {
    type: "object",
    properties: { files: FILES, objects: { type: "array", items: object } },
  };
  server.post<{ Body: DeleteBody }>("/v1/delete", { schema: { body: toDelete } }, (request) => {
    const reading = readFiles(request.body.files ?? []);
    const named = (request.body.objects ?? []).map(({ kind, namespace, name }) => {
      return nameOfObject(kind, namespace, name);
    });
    // What a file names may be gone already; what a person names should be there.
    const fromFiles = [...reading.objects.keys()].filter((name) => runtime.objects.has(name));
    const changes = runtime.remove([...fromFiles, ...named]);
    return { changes, problems: reading.problems } satisfies ApplyAnswer;
  });

  const scale = {
    type: "object",
    required: ["namespace", "deployment", "replicas"],
    properties: {
      namespace: text,
      deployment: text,
      replicas: { type: "integer", minimum: 0, maximum: 1_000 },
    },
  };
  server.post<{ Body: { namespace: string; deployment: string; replicas: number } }>(
    "/v1/scale",
    { schema: { body: scale } },
    (request) => {
      const { namespace, deployment, replicas } = request.body;
      runtime.scale(namespace, deployment, replicas);
      return {};
    },
  );
}

function addPodRoutes(server: FastifyInstance, { runtime }: ApiOptions): void {
  const exec = {
    type: "object",
    required: ["namespace", "pod", "command"],
    properties: { ...POD, command: { type: "array", minItems: 1, items: { type: "string" } } },
  };
  server.post<{ Body: PodQuery & { command: readonly string[] } }>(
    "/v1/exec",
    { schema: { body: exec } },
    (request) => {
      const { pod, container } = findContainer(runtime.pods, request.body);
      const command = pod.enter(container, request.body.command);
      if (command === undefined) {
        const reason = `container "${container}" is not running`;
        throw new MeshError("REQUEST_REFUSED", `Cannot enter pod "${request.body.pod}": ${reason}`);
      }
      return { command } satisfies ExecAnswer;
    },
  );

  const logs = {
    type: "object",
    required: ["namespace", "pod"],
    properties: { ...POD, follow: { type: "boolean" }, tail: { type: "integer", minimum: 0 } },
  };
  server.get<{ Querystring: PodQuery & { follow?: boolean; tail?: number } }>(
    "/v1/logs",
    { schema: { querystring: logs } },
    async (request, reply) => {
      const { pod, container } = findContainer(runtime.pods, request.query);
      const path = runtime.names.containerLog(pod.options.pod, container);
      const { follow = false, tail } = request.query;
      const stream = await openLogStream(path, { follow, tail });
      request.raw.once("close", () => stream.destroy());
      return reply.type("text/plain; charset=utf-8").send(stream);
    },
  );
}
