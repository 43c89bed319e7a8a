/** Calls of a local runtime's API. */
import type { IncomingMessage } from "node:http";
import { join } from "node:path";
import type { AgentUpgrade, ApplyAnswer, ExecAnswer, LocalStatus } from "#core/local-api.ts";
import { readAll, refusalOf, sendUnix } from "./unix-http.ts";

export interface FileText {
  readonly path: string;
  readonly text: string;
}

export interface PodReference {
  readonly namespace: string;
  readonly pod: string;
  readonly container?: string | undefined;
}

export interface ObjectReference {
  readonly kind: string;
  readonly namespace: string;
  readonly name: string;
}

/** Objects are read and checked within milliseconds; the rest happens after the answer. */
const TIMEOUT_MS = 10_000;
/** One node after the other, and each has 90 s at most. */
const UPGRADE_TIMEOUT_MS = 15 * 60_000;

export const LOCAL_ROOT = process.env["AQUIFER_LOCAL_ROOT"] ?? "/run/aquifer/local";

export class LocalApi {
  readonly name: string;
  readonly #socketPath: string;

  constructor(name: string) {
    this.name = name;
    this.#socketPath = join(LOCAL_ROOT, name, "api.sock");
  }

  // Answers are those of our own runtime, by the types that it answers with.

  async status(): Promise<LocalStatus> {
    return (await this.#call("GET", "/v1/status")) as LocalStatus;
  }

  async apply(files: readonly FileText[]): Promise<ApplyAnswer> {
    return (await this.#call("POST", "/v1/apply", { files })) as ApplyAnswer;
  }

  async delete(what: {
    readonly files?: readonly FileText[];
    readonly objects?: readonly ObjectReference[];
  }): Promise<ApplyAnswer> {
    return (await this.#call("POST", "/v1/delete", what)) as ApplyAnswer;
  }

  async scale(namespace: string, deployment: string, replicas: number): Promise<void> {
    await this.#call("POST", "/v1/scale", { namespace, deployment, replicas });
  }

  async exec(pod: PodReference, command: readonly string[]): Promise<ExecAnswer> {
    return (await this.#call("POST", "/v1/exec", { ...pod, command })) as ExecAnswer;
  }

  async upgrade(nodes: readonly string[]): Promise<readonly AgentUpgrade[]> {
    const body = nodes.length === 0 ? {} : { nodes };
    const answer = await this.#call("POST", "/v1/upgrade", body, UPGRADE_TIMEOUT_MS);
    return (answer as { readonly upgrades: readonly AgentUpgrade[] }).upgrades;
  }

  async down(): Promise<void> {
    await this.#call("POST", "/v1/down", {});
  }

  /** The log as it comes; it ends by itself unless `follow`. */
  async logs(
    pod: PodReference,
    { follow, tail }: { readonly follow: boolean; readonly tail: number | undefined },
  ): Promise<IncomingMessage> {
    const query = new URLSearchParams({ namespace: pod.namespace, pod: pod.pod });
    if (pod.container !== undefined) query.set("container", pod.container);
    if (follow) query.set("follow", "true");
    if (tail !== undefined) query.set("tail", String(tail));
    const response = await this.#send("GET", `/v1/logs?${query}`);
    if (response.statusCode !== 200) throw refusalOf(response, await readAll(response));
    return response;
  }

  async #call(
    method: string,
    path: string,
    body?: object,
    timeoutMs = TIMEOUT_MS,
  ): Promise<unknown> {
    const response = await this.#send(method, path, body, timeoutMs);
    const text = await readAll(response);
    if ((response.statusCode ?? 0) >= 300) throw refusalOf(response, text);
    return JSON.parse(text);
  }

  #send(
    method: string,
    path: string,
    body?: object,
    timeoutMs = TIMEOUT_MS,
  ): Promise<IncomingMessage> {
    return sendUnix({
      socketPath: this.#socketPath,
      method,
      path,
      ...(body === undefined ? {} : { body }),
      timeoutMs,
      whom: `runtime "${this.name}"`,
      hint: 'start it: "aquifer local up"',
    });
  }
}
