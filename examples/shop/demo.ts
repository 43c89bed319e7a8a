/**
 * `npm start`: brings the shop up in a mesh on this host and shows who talks to whom.
 *
 *   npm start                until Ctrl-C, a live view
 *   npm start -- --once      for a while, then checks every claim that it makes, and cleans up
 */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { parseArgs } from "node:util";
import { reasonOf } from "#core/errors.ts";
import type { LocalStatus } from "#core/local-api.ts";
import { type AccessRecord, LogFollower, parseAccessLine } from "./access-log.ts";
import { Capture } from "./capture.ts";
import { type Claim, type Evidence, judge } from "./claims.ts";
import { leftoversOf } from "./leftovers.ts";
import { Runtime } from "./runtime.ts";
import { Edges, renderEdges } from "./view.ts";

const NAME = "shop";
const NODES = 2;
/** Long enough for each caller to have called several times. */
const ONCE_MS = 12_000;
const REFRESH_MS = 1_000;
/** Kept for the checks of `--once`; the live view sums up and forgets. */
const RECORDS_MAX = 100_000;

const USAGE = `usage: npm start [-- --once]

  --once   run for ${ONCE_MS / 1_000} s, check every claim, clean up, exit 0 or 1
`;

const HINTS = `Ctrl-C ends it and cleans up. In another terminal:
  npx aquifer local status --name ${NAME}
  npx aquifer local exec --name ${NAME} -n shop deploy/front -- curl -s http://catalog/goods
  npx aquifer local exec --name ${NAME} -n shop deploy/thief -- curl -sS http://payments.bank/pay
`;

class Demo {
  readonly #runtime: Runtime;
  readonly #follower = new LogFollower();
  readonly #edges = new Edges();
  readonly records: AccessRecord[] = [];
  readonly #startedAtMs = Date.now();
  readyAtMs = 0;
  #status: LocalStatus | undefined;

  constructor(runtime: Runtime) {
    this.#runtime = runtime;
  }

  /** Seconds from the end of set-up to the first connection with an identity on both sides. */
  get firstTunnelSeconds(): number | undefined {
    const first = this.records.find(
      ({ sourceIdentity, destinationIdentity, error }) =>
        sourceIdentity !== undefined && destinationIdentity !== undefined && error === undefined,
    );
    return first && Math.max(0, first.atMs - this.readyAtMs) / 1_000;
  }

  /** Seconds from the demo's start until every pod was ready. */
  get bringUpSeconds(): number {
    return (this.readyAtMs - this.#startedAtMs) / 1_000;
  }

  async ready(): Promise<LocalStatus> {
    this.#status = await this.#runtime.ready();
    this.readyAtMs = Date.now();
    return this.#status;
  }

  /** Shows the table again and again until `signal`. */
  async watch(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      await this.#readLogs();
      this.#draw();
      await delay(REFRESH_MS, undefined, { signal }).catch(() => undefined); // told to stop
    }
    await this.#readLogs();
    await this.#follower.close();
  }

  async #readLogs(): Promise<void> {
    for (const { name, agent } of this.#status?.nodes ?? []) {
      for (const line of await this.#follower.newLines(agent?.log ?? "")) {
        const record = parseAccessLine(name, line);
        // Before everything was ready some called in vain, as they would anywhere.
        if (record === undefined || record.atMs < this.readyAtMs) continue;
        this.#edges.add(record);
        if (this.records.length < RECORDS_MAX) this.records.push(record);
      }
    }
  }

  #draw(): void {
    const seconds = this.firstTunnelSeconds;
    const first =
      seconds === undefined
        ? "no mTLS connection yet"
        : `first mTLS connection after ${seconds.toFixed(1)} s`;
    const table = renderEdges(this.#edges.list());
    // On a terminal the table stays in its place; elsewhere only the last one is of use.
    if (process.stdout.isTTY) {
      process.stdout.write(`\x1b[2J\x1b[H${first}\n\n${table}\n\n${HINTS}`);
    }
  }

  table(): string {
    return renderEdges(this.#edges.list());
  }
}

/** What the pods of a deployment printed since `sinceMs`, where they say when; else all of it. */
async function podLog(status: LocalStatus, name: string, sinceMs = 0): Promise<readonly string[]> {
  const logs = status.pods
    .filter((pod) => `${pod.namespace}/${pod.name}`.startsWith(`${name}-`))
    .flatMap(({ containers }) => containers.map(({ log }) => log));
  const texts = await Promise.all(logs.map((path) => readFile(path, "utf8")));
  const lines = texts.flatMap((text) => text.split("\n").filter((line) => line !== ""));
  return lines.filter((line) => Number(/"at":(\d+)/.exec(line)?.[1] ?? sinceMs) >= sinceMs);
}

async function gather(demo: Demo, status: LocalStatus, capture: Capture): Promise<Evidence> {
  await capture.stop();
  const cart = status.pods.filter(({ labels }) => labels["app"] === "cart");
  return {
    records: demo.records,
    segments: await capture.segments(),
    paymentsLog: await podLog(status, "bank/payments"),
    thiefLog: await podLog(status, "shop/thief"),
    prowlerLog: await podLog(status, "street/prowler"),
    passerbyLog: await podLog(status, "street/passerby"),
    visitorLog: await podLog(status, "shop/visitor", demo.readyAtMs),
    cartAddresses: cart.flatMap(({ addresses }) => addresses),
    firstTunnelSeconds: demo.firstTunnelSeconds,
    bringUpSeconds: demo.bringUpSeconds,
    nodes: status.nodes.map(({ name }) => name),
  };
}

function printClaims(claims: readonly Claim[]): boolean {
  for (const { claim, holds, seen } of claims) {
    process.stdout.write(`${holds ? "ok    " : "FAILED"} ${claim} (${seen})\n`);
  }
  return claims.every(({ holds }) => holds);
}

/** The whole demo, once, with all checks. @returns whether every claim holds */
async function once(runtime: Runtime, abort: AbortSignal): Promise<boolean> {
  let capture: Capture | undefined;
  try {
    const demo = new Demo(runtime);
    // From the first moment, so that the handshakes of the tunnels are in it.
    const { fabric, stateDir } = await runtime.answering();
    capture = await Capture.start(fabric.netns, join(stateDir, "between-nodes.pcap"));
    const status = await demo.ready();
    process.stdout.write(`The shop is open; watching it for ${ONCE_MS / 1_000} s.\n`);
    await demo.watch(AbortSignal.any([abort, AbortSignal.timeout(ONCE_MS)]));
    if (abort.aborted) throw new Error("interrupted");
    const claims = judge(await gather(demo, status, capture));
    process.stdout.write(`\n${demo.table()}\n\n`);
    const code = await runtime.stop();
    const left = await leftoversOf(status);
    const cleanUp: Claim = {
      claim: "nothing is left behind",
      holds: code === 0 && left.length === 0,
      seen: left.length === 0 ? `the runtime ended with ${code}` : left.join(", "),
    };
    return printClaims([...claims, cleanUp]);
  } finally {
    await capture?.stop();
  }
}

/** The live view, until Ctrl-C. */
async function live(runtime: Runtime, abort: AbortSignal): Promise<boolean> {
  const demo = new Demo(runtime);
  await demo.ready();
  await demo.watch(abort);
  process.stdout.write(`\n${demo.table()}\n`);
  return true;
}

/** Aborted by Ctrl-C, and when whoever started the demo (npm) has been killed. */
function endSignal(): AbortSignal {
  const controller = new AbortController();
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
    process.on(signal, () => controller.abort());
  }
  const parent = process.ppid;
  setInterval(() => process.ppid === parent || controller.abort(), REFRESH_MS).unref();
  return controller.signal;
}

async function main(show: typeof once | typeof live): Promise<boolean> {
  const abort = endSignal();
  await Runtime.awaitEarlier(NAME);
  const runtime = Runtime.start(NAME, NODES, abort);
  try {
    return await show(runtime, abort);
  } finally {
    await runtime.stop();
  }
}

try {
  const { values } = parseArgs({
    options: { once: { type: "boolean" }, help: { type: "boolean" } },
  });
  if (values.help) process.stdout.write(USAGE);
  else process.exitCode = (await main(values.once ? once : live)) ? 0 : 1;
} catch (error) {
  process.stderr.write(`Cannot run the demo: ${reasonOf(error)}\n`);
  process.exitCode = 1;
}
