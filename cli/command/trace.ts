import { createInterface } from "node:readline";
import { Argument, Command, Option } from "commander";
import { MeshError } from "#core/errors.ts";
import { TRACE_NAMES, type TraceLine, type TraceName } from "#core/trace.ts";
import { formatTraceHead, formatTraceLine } from "../render/trace.ts";
import { readAll, refusalOf, sendUnix } from "../unix-http.ts";
import { outputOption } from "./options.ts";

interface TraceOptions {
  readonly pod?: string;
  readonly for?: string;
  readonly slow?: string;
  readonly socket: string;
  readonly output?: "json";
}

/** The answer begins once the kernel has the probes: on a loaded machine that takes its time. */
const START_LIMIT_MS = 60_000;

export function traceCommand(): Command {
  return new Command("trace")
    .description("show what the kernel does with connections on this node (needs bpftrace)")
    .addArgument(new Argument("<name>", "what to look at").choices(TRACE_NAMES))
    .addOption(new Option("--pod <pod>", "only of this pod: NAMESPACE/NAME or its uid"))
    .addOption(new Option("--for <duration>", "how long, as 10s or 5m (default: 10s)"))
    .addOption(new Option("--slow <duration>", "of handshakes: tell of those that took longer"))
    .addOption(
      new Option("--socket <path>", "of the agent's local API")
        .env("AQUIFER_AGENT_SOCKET")
        .default("/run/aquifer/agent.sock"),
    )
    .addOption(outputOption())
    .action(trace);
}

async function trace(name: TraceName, options: TraceOptions): Promise<void> {
  const query = new URLSearchParams();
  for (const parameter of ["pod", "for", "slow"] as const) {
    const value = options[parameter];
    if (value !== undefined) query.set(parameter, value);
  }
  const response = await sendUnix({
    socketPath: options.socket,
    method: "GET",
    path: `/v1/trace/${name}?${query}`,
    timeoutMs: START_LIMIT_MS,
    whom: `the agent at "${options.socket}"`,
    hint: "name another one with --socket",
  });
  if (response.statusCode !== 200) throw refusalOf(response, await readAll(response));
  if (options.output === undefined) process.stdout.write(formatTraceHead(name));
  let end: "cut off" | "whole" | "failed" = "cut off";
  for await (const text of createInterface({ input: response })) {
    const line = JSON.parse(text) as TraceLine; // our own agent's
    if (options.output === "json") process.stdout.write(`${text}\n`);
    else print(name, line);
    if (line.type === "summary") end = "whole";
    if (line.type === "error") end = "failed";
  }
  if (end === "whole") return;
  const reason = end === "failed" ? "it ended with an error" : "the agent went away";
  throw new MeshError("COMMAND_FAILED", `Cannot finish trace "${name}": ${reason}`);
}

function print(name: TraceName, line: TraceLine): void {
  const { to, text } = formatTraceLine(name, line);
  process[to].write(text);
}
