/** The runtime's side of a node's prober. */
import type { IpAddress } from "#core/ip.ts";
import { readJsonLines, writeJsonLine } from "../json-lines.ts";
import { type ProcessOptions, SupervisedProcess } from "../mesh/supervise.ts";
import type { ProbeSpec } from "../object/object.ts";
import type { ProbeOutcome } from "../pod/prober.ts";
import type { FromProber, ToProber } from "./messages.ts";

const SCRIPT = new URL("main.ts", import.meta.url).pathname;

export type ProberPlace = Pick<ProcessOptions, "place" | "environment" | "logPath" | "onNote"> & {
  readonly node: string;
};

export class NodeProber {
  readonly #process: SupervisedProcess;
  /** As many as there are probes under way: each pod's wait for their outcome. */
  readonly #waiting = new Map<number, (outcome: ProbeOutcome) => void>();
  #input: NodeJS.WritableStream | undefined;
  #number = 0;

  constructor({ node, ...options }: ProberPlace) {
    this.#process = new SupervisedProcess({
      ...options,
      name: `prober of ${node}`,
      command: [process.execPath, SCRIPT],
      piped: true,
      onStart: ({ stdin, stdout }) => {
        if (stdin === null || stdout === null) throw new TypeError("the prober has no pipes");
        this.#fail("the prober was started again");
        this.#input = stdin;
        stdin.on("error", () => undefined); // it ended: a new one is started
        readJsonLines(stdout, (value) => {
          const { number, outcome } = value as FromProber; // by the types of messages.ts
          this.#settle(number, outcome);
        });
      },
    });
  }

  start(): Promise<void> {
    return this.#process.start();
  }

  async stop(graceMs: number): Promise<void> {
    await this.#process.stop(graceMs);
    this.#fail("the prober has ended");
  }

  /** One attempt, from the node's network. Never rejects. */
  attempt(spec: ProbeSpec, ip: IpAddress): Promise<ProbeOutcome> {
    if (this.#input?.writable !== true) {
      return Promise.resolve({ ok: false, reason: "the node has no prober" });
    }
    const { promise, resolve } = Promise.withResolvers<ProbeOutcome>();
    this.#number++;
    this.#waiting.set(this.#number, resolve);
    writeJsonLine(this.#input, { number: this.#number, spec, ip } satisfies ToProber);
    return promise;
  }

  #settle(number: number, outcome: ProbeOutcome): void {
    this.#waiting.get(number)?.(outcome);
    this.#waiting.delete(number);
  }

  #fail(reason: string): void {
    for (const number of [...this.#waiting.keys()]) this.#settle(number, { ok: false, reason });
  }
}
