import { spawn } from "node:child_process";
import { MeshError } from "#core/errors.ts";

export interface CommandOptions {
  readonly input?: string;
  readonly env?: NodeJS.ProcessEnv;
  /** The command is killed when it takes longer. */
  readonly timeoutMs?: number;
}

/** Nothing the runtime calls takes longer than a moment; one that hangs must not hang us. */
const TIMEOUT_MS = 30_000;
/** What is kept of each output stream; the end of an error message says less than its start. */
const OUTPUT_BYTES_MAX = 4 * 1024 * 1024;

/**
 * Runs a command to its end.
 *
 * @returns what it wrote to standard output
 * @throws MeshError `COMMAND_FAILED`, with what it wrote to standard error
 */
export async function run(
  file: string,
  args: readonly string[],
  options: CommandOptions = {},
): Promise<string> {
  const { input, env, timeoutMs = TIMEOUT_MS } = options;
  const child = spawn(file, args, {
    stdio: ["pipe", "pipe", "pipe"],
    ...(env === undefined ? {} : { env }),
    timeout: timeoutMs,
    killSignal: "SIGKILL",
  });
  const output = collect(child.stdout);
  const complaints = collect(child.stderr);
  // A command that ends without reading its input closes the pipe: its exit code tells why.
  child.stdin.on("error", () => undefined);
  child.stdin.end(input);
  const { promise, resolve, reject } = Promise.withResolvers<number | string>();
  child.once("error", reject);
  child.once("close", (code, signal) => resolve(code ?? signal ?? "unknown"));
  const called = [file, ...args].join(" ");
  const outcome = await promise.catch((cause: unknown) => {
    throw new MeshError("COMMAND_FAILED", `Cannot run "${called}"`, { cause });
  });
  if (outcome === 0) return output();
  const reason = complaints().trim() || `it ended with ${outcome}`;
  throw new MeshError("COMMAND_FAILED", `Cannot run "${called}": ${reason}`);
}

function collect(stream: NodeJS.ReadableStream): () => string {
  const chunks: Buffer[] = [];
  let bytes = 0;
  stream.on("data", (chunk: Buffer) => {
    if (bytes < OUTPUT_BYTES_MAX) chunks.push(chunk);
    bytes += chunk.length;
  });
  return () => Buffer.concat(chunks).toString("utf8");
}
