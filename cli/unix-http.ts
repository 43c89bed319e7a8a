/** HTTP over a unix socket: how the command line asks the processes of this host. */
import { type IncomingMessage, request } from "node:http";
import { MeshError } from "#core/errors.ts";

export interface UnixRequest {
  readonly socketPath: string;
  readonly method: string;
  readonly path: string;
  readonly body?: object;
  /** Until the headers of the answer; a body may take as long as it likes. */
  readonly timeoutMs: number;
  /** Whom it is asked of, for messages: `runtime "shop"`. */
  readonly whom: string;
  /** What to do where nobody listens. */
  readonly hint: string;
}

/** @throws MeshError `PEER_UNREACHABLE` where nobody answers */
export function sendUnix(options: UnixRequest): Promise<IncomingMessage> {
  const { socketPath, method, path, body, timeoutMs, whom, hint } = options;
  const { promise, resolve, reject } = Promise.withResolvers<IncomingMessage>();
  const text = body === undefined ? undefined : JSON.stringify(body);
  const headers = text === undefined ? {} : { "content-type": "application/json" };
  const sent = request({ socketPath, method, path, headers });
  sent.setTimeout(timeoutMs, () => sent.destroy(new Error("it does not answer")));
  sent.once("response", (response) => {
    sent.setTimeout(0);
    resolve(response);
  });
  sent.once("error", (error: Error & { code?: string }) => {
    const isGone = error.code === "ENOENT" || error.code === "ECONNREFUSED";
    const why = isGone ? `it is not running (${hint})` : error.message;
    reject(new MeshError("PEER_UNREACHABLE", `Cannot ask ${whom}: ${why}`));
  });
  sent.end(text);
  return promise;
}

export async function readAll(stream: IncomingMessage): Promise<string> {
  stream.setEncoding("utf8");
  let text = "";
  for await (const chunk of stream) text += String(chunk);
  return text;
}

/** What an answer that is no success says of itself: our processes answer `{"error": …}`. */
export function refusalOf({ statusCode }: IncomingMessage, text: string): MeshError {
  let reason = `it answered ${statusCode}`;
  try {
    const body: unknown = JSON.parse(text);
    const error = typeof body === "object" && body !== null ? Reflect.get(body, "error") : "";
    if (typeof error === "string" && error !== "") reason = error;
  } catch {
    // Not JSON: the status has to do.
  }
  return new MeshError("REQUEST_REFUSED", reason);
}
