/** Calls of an agent's local API. */
import { request } from "node:http";
import { MeshError } from "#core/errors.ts";
import type { IpAddress } from "#core/ip.ts";
import type { ResolverSettings } from "../pod/files.ts";

export interface EnrolledPod {
  readonly uid: string;
  readonly name: string;
  readonly namespace: string;
  readonly serviceAccount: string;
  readonly addresses: readonly IpAddress[];
  readonly netns: string;
  readonly probePorts: readonly number[];
  /** With its mode as the user wrote it: the agent says what is wrong with it. */
  readonly strictEgress?: { readonly mode: string; readonly cgroup: string };
  readonly dns: ResolverSettings & { readonly capture: boolean };
}

/** An agent answers once capture is in force, which takes milliseconds. */
const TIMEOUT_MS = 10_000;
/** An answer is a line or two; whoever says more is not an agent. */
const ANSWER_BYTES_MAX = 1024 * 1024;

export class AgentClient {
  readonly #socketPath: string;

  constructor(socketPath: string) {
    this.#socketPath = socketPath;
  }

  /** Resolves once the pod's connections are captured, and its listeners stand. */
  async enrol({ uid, ...pod }: EnrolledPod): Promise<void> {
    await this.#call("PUT", `/v1/pods/${uid}`, pod);
  }

  /** No harm where the agent does not know the pod. */
  async remove(uid: string): Promise<void> {
    await this.#call("DELETE", `/v1/pods/${uid}`);
  }

  /** Whether it answers. */
  async check(): Promise<void> {
    await this.#call("GET", "/v1/pods");
  }

  /** The process that serves the pods; of two, once the other cannot take them back any more. */
  async pidInCharge(): Promise<number | undefined> {
    // Of an agent of ours; whatever else may be in it is not a number.
    const answer = JSON.parse(await this.#call("GET", "/v1/agent")) as {
      readonly pid: unknown;
      readonly inCharge: unknown;
    };
    return answer.inCharge === true && typeof answer.pid === "number" ? answer.pid : undefined;
  }

  async #call(method: string, path: string, body?: object): Promise<string> {
    const { promise, resolve, reject } = Promise.withResolvers<{ status: number; text: string }>();
    const text = body === undefined ? "" : JSON.stringify(body);
    const sent = request({
      socketPath: this.#socketPath,
      method,
      path,
      headers: {
        ...(body === undefined ? {} : { "content-type": "application/json" }),
        "content-length": Buffer.byteLength(text),
      },
      signal: AbortSignal.timeout(TIMEOUT_MS),
    });
    sent.once("error", reject);
    sent.once("response", (response) => {
      const chunks: string[] = [];
      let bytes = 0;
      response.setEncoding("utf8");
      response.on("data", (chunk: string) => {
        bytes += chunk.length;
        if (bytes > ANSWER_BYTES_MAX) response.destroy(new Error("the answer is too long"));
        else chunks.push(chunk);
      });
      response.once("error", reject);
      response.once("end", () => {
        resolve({ status: response.statusCode ?? 0, text: chunks.join("") });
      });
    });
    sent.end(text);
    const answer = await promise.catch((cause: unknown) => {
      throw new MeshError("PEER_UNREACHABLE", `Cannot ask the agent (${method} ${path})`, {
        cause,
      });
    });
    if (answer.status >= 200 && answer.status < 300) return answer.text;
    const reason = errorIn(answer.text) ?? `it answered ${answer.status}`;
    throw new MeshError("PEER_REFUSED", `Cannot ask the agent (${method} ${path}): ${reason}`);
  }
}

function errorIn(text: string): string | undefined {
  try {
    const body: unknown = JSON.parse(text);
    if (typeof body !== "object" || body === null) return undefined;
    const error: unknown = Reflect.get(body, "error");
    return typeof error === "string" ? error : undefined;
  } catch {
    return undefined; // not JSON: the status has to do
  }
}
