/**
 * The API by which whoever makes pods on this node (the local runtime, a CNI plugin) enrols them:
 * HTTP and JSON on a unix socket that only root can open.
 */
import { mkdirSync, rmSync } from "node:fs";
import net from "node:net";
import { dirname } from "node:path";
import fastify from "fastify";
import { MeshError, reasonOf } from "#core/errors.ts";
import type { Logger } from "../log.ts";
import { addTraceRoutes } from "../trace/route.ts";
import { listenInPlace } from "../unix-socket.ts";
import type { PodStatus } from "./enrollment-loop.ts";
import { type Pod, type PodUid, parsePod, parsePodUid } from "./pod.ts";

export interface PodRegistry {
  put(pod: Pod): void;
  delete(uid: PodUid): void;
  list(): readonly PodStatus[];
}

export interface LocalApi {
  /** Resolves when the last request has been answered; nobody new is heard from the call on. */
  close(): Promise<void>;
}

/** A pod with two addresses and long names has less than 1 KiB. */
const BODY_BYTES_MAX = 16 * 1024;

/**
 * @param isInCharge  false while another agent could still take everything back
 * @throws MeshError `SETTINGS_INVALID` where another agent answers on the socket
 */
export async function serveLocalApi(
  path: string,
  registry: PodRegistry,
  log: Logger,
  isInCharge: () => boolean = () => true,
): Promise<LocalApi> {
  await checkIsFree(path);
  const server = fastify({ bodyLimit: BODY_BYTES_MAX });

  server.put<{ Params: { uid: string } }>("/v1/pods/:uid", (request) => {
    registry.put(parsePod(parsePodUid(request.params.uid), request.body));
    return { state: "up" };
  });
  server.delete<{ Params: { uid: string } }>("/v1/pods/:uid", (request, reply) => {
    registry.delete(parsePodUid(request.params.uid));
    return reply.code(204).send();
  });
  server.get("/v1/agent", () => ({ pid: process.pid, inCharge: isInCharge() }));
  server.get("/v1/pods", () => ({ pods: registry.list().map(describePod) }));
  addTraceRoutes(server, { findNetns: (pod) => findPod(registry, pod)?.netns });

  server.setNotFoundHandler((request, reply) =>
    reply.code(404).send({ error: `Cannot ${request.method} "${request.url}": no such resource` }),
  );
  server.setErrorHandler((error, _request, reply) => {
    const status = statusOf(error);
    if (status === 500) log.error({ error: reasonOf(error) }, "request failed");
    return reply.code(status).send({ error: reasonOf(error) });
  });

  await listenInPlace(path, (temporary) => server.listen({ path: temporary }));
  return {
    close: () => {
      // Before anything else: from then on the path is free for another agent.
      rmSync(path, { force: true });
      return server.close();
    },
  };
}

/** By uid, or by `namespace/name`. */
function findPod(registry: PodRegistry, wanted: string): Pod | undefined {
  const found = registry.list().find(({ pod: { uid, namespace, name } }) => {
    return uid === wanted || `${namespace}/${name}` === wanted;
  });
  return found?.pod;
}

function statusOf(error: unknown): number {
  if (error instanceof MeshError) return error.code === "REQUEST_REFUSED" ? 400 : 500;
  // fastify's own: a body that is no JSON, or too long.
  const status = error instanceof Error && "statusCode" in error ? error.statusCode : undefined;
  return typeof status === "number" && status >= 400 && status < 500 ? status : 500;
}

function describePod({ pod, state, reason }: PodStatus) {
  const { uid, name, namespace, serviceAccount, addresses } = pod;
  const facts = { uid, name, namespace, serviceAccount, addresses, state };
  return reason === undefined ? facts : { ...facts, reason };
}

/** A socket outlives an agent that was killed. One that somebody answers on is not ours to take. */
async function checkIsFree(path: string): Promise<void> {
  mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
  const isAnswered = await new Promise<boolean>((resolve) => {
    const socket = net.connect({ path });
    socket.once("connect", () => {
      socket.destroy();
      resolve(true);
    });
    socket.once("error", () => resolve(false));
  });
  if (isAnswered) {
    const reason = "another agent listens on it";
    throw new MeshError("SETTINGS_INVALID", `Cannot use socket "${path}": ${reason}`);
  }
}
