import type { Clock } from "#core/clock.ts";
import { formatSocketAddress, type SocketAddress } from "#core/ip.ts";
import { type ProblemChange, ProblemLog } from "./admin/problem-log.ts";
import { type Admin, startAdmin } from "./admin/server.ts";
import { preparePrivateDirectory } from "./authority/files.ts";
import type { ControlConfig } from "./config.ts";
import { describeServeEvent, type ServeEvent } from "./distribute/events.ts";
import { type DiscoveryAndCa, startDiscoveryAndCa } from "./distribute/serve.ts";
import { MeshIndex } from "./index/mesh-index.ts";
import type { Logger } from "./log.ts";
import { ControlMetrics } from "./metrics.ts";
import { ObjectMemory } from "./resources/memory.ts";
import { ObjectRegister } from "./resources/register.ts";
import { DirectorySource } from "./source/directory/directory.ts";
import { formatProblem } from "./source/problem.ts";
import type { ObjectSource, SourceChange } from "./source/source.ts";

export interface ControlOptions {
  readonly config: ControlConfig;
  readonly version: string;
  readonly log: Logger;
  readonly clock: Clock;
}

/**
 * Control as a whole. It starts from the inside out: nodes are served only once all objects are
 * known, for to them an object that has not been read yet is one that was deleted.
 */
export class Control {
  readonly #options: ControlOptions;
  readonly #index: MeshIndex;
  readonly #metrics: ControlMetrics;
  readonly #problems: ProblemLog;
  readonly #pending = new Set(["objects", "discovery"]);
  readonly #stopping = new AbortController();
  #memory: ObjectMemory | undefined;
  #source: ObjectSource | undefined;
  #admin: Admin | undefined;
  #discovery: DiscoveryAndCa | undefined;

  constructor(options: ControlOptions) {
    const { config, version, clock } = options;
    this.#options = options;
    this.#index = new MeshIndex(config);
    this.#metrics = new ControlMetrics(version);
    this.#problems = new ProblemLog(clock);
  }

  /** Where readiness, problems and metrics are asked for. */
  get adminAddress(): SocketAddress | undefined {
    return this.#admin?.address;
  }

  /** Where nodes come to; undefined until they may. */
  get discoveryAddress(): SocketAddress | undefined {
    return this.#discovery?.address;
  }

  /**
   * @returns once nodes are served, which may be long after: a source can take its time
   * @throws MeshError `SETTINGS_INVALID`, or what `stop()` was called with meanwhile
   */
  async start(): Promise<void> {
    const { config, log, clock } = this.#options;
    this.#admin = await startAdmin({
      address: config.adminAddress,
      pending: () => [...this.#pending],
      problems: () => this.#problems.standing,
      catchUp: async () => await this.#source?.catchUp(),
      nodes: () => this.#discovery?.nodes() ?? new Map(),
      metrics: async () => ({
        contentType: this.#metrics.contentType,
        text: await this.#metrics.text(),
      }),
    });
    await this.#readObjects();
    this.#discovery = await startDiscoveryAndCa({
      address: config.discoveryAddress,
      stateDirectory: config.stateDirectory,
      serverNames: config.serverNames,
      trustDomain: config.trustDomain,
      snapshots: this.#index,
      placement: this.#index,
      clock,
      onEvent: (event) => this.#onServeEvent(event),
    });
    this.#pending.delete("discovery");
    const addresses = {
      discovery: formatSocketAddress(this.#discovery.address),
      admin: formatSocketAddress(this.#admin.address),
    };
    log.info(addresses, "control is ready");
  }

  /** Nodes go on with what they know; their streams end first, so that they look elsewhere. */
  async stop(): Promise<void> {
    this.#pending.add("discovery");
    this.#stopping.abort(new Error("control is stopping"));
    await this.#discovery?.close();
    await this.#source?.close();
    this.#memory?.close();
    await this.#admin?.close();
  }

  /** @returns once all objects are known */
  async #readObjects(): Promise<void> {
    const { config, log } = this.#options;
    await preparePrivateDirectory(config.stateDirectory);
    this.#memory = new ObjectMemory(config.stateDirectory, (reason) => log.warn(reason));
    const register = new ObjectRegister(config, this.#memory);
    this.#source = new DirectorySource(config.sourceDirectories, this.#memory.all());
    await this.#source.start((change) => this.#onChange(register, change), this.#stopping.signal);
    this.#pending.delete("objects");
    const { workloads, services, policies } = this.#index.current();
    const sizes = {
      workloads: workloads.size,
      services: services.size,
      policies: policies.size,
    };
    log.info(sizes, "objects read");
  }

  #onChange(register: ObjectRegister, change: SourceChange): void {
    register.apply(change);
    this.#index.update(register.objects);
    const problems = [...register.problems, ...this.#index.problems];
    this.#tell(this.#problems.update(problems));
    this.#metrics.countProblems(problems);
    this.#metrics.countObjects(register.objects);
    this.#metrics.countSnapshot(this.#index.current());
  }

  #tell({ opened, mended }: ProblemChange): void {
    const { log } = this.#options;
    for (const { problem } of opened) {
      log.warn({ effect: problem.effect }, formatProblem(problem));
    }
    for (const { problem } of mended) log.info(`mended: ${formatProblem(problem)}`);
  }

  #onServeEvent(event: ServeEvent): void {
    this.#metrics.countEvent(event);
    const { level, message } = describeServeEvent(event);
    const { kind: _kind, ...fields } = event;
    this.#options.log[level](fields, message);
  }
}
