/** The nodes, the fabric between them, and the mesh's own processes. */
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { MeshError, reasonOf } from "#core/errors.ts";
import type { AgentStatus, AgentUpgrade, ControlStatus } from "#core/local-api.ts";
import { CONTROL_ADDRESS, nodeAddress } from "./addresses.ts";
import { run } from "./command.ts";
import type { LocalConfig } from "./config.ts";
import type { Zone } from "./dns/zone.ts";
import type { ControlState } from "./fabric/control-watch.ts";
import type { ControlProblem, FromFabric, ToFabric } from "./fabric/messages.ts";
import { readJsonLines, writeJsonLine } from "./json-lines.ts";
import { AgentClient } from "./mesh/agent-client.ts";
import { ControlQuestions } from "./mesh/control-questions.ts";
import { SupervisedProcess } from "./mesh/supervise.ts";
import { FABRIC, type Names, nodeName } from "./names.ts";
import { addNetns, ipBatch, netnsPath, setSysctls } from "./network/ip.ts";
import { fabricLinks, nodeLinks, ROUTER_SETTINGS } from "./network/links.ts";
import { NodeProber } from "./prober/node-prober.ts";
import { writeWhole } from "./state/files.ts";
import type { Ledger } from "./state/ledger.ts";

const PROJECT = join(import.meta.dirname, "..");
const DISCOVERY_PORT = 15_012;
const ADMIN_PORT = 15_014;

export interface ClusterNode {
  readonly number: number;
  readonly name: string;
  readonly netns: string;
  readonly agent: AgentClient | undefined;
  readonly prober: NodeProber | undefined;
}

export interface ClusterEvents {
  readonly onNote: (note: string) => void;
  readonly onAgentUp: (node: ClusterNode) => void;
  readonly onProblems: (problems: readonly ControlProblem[]) => void;
}

interface NodeAgent {
  readonly process: SupervisedProcess;
  readonly firstUp: PromiseWithResolvers<void>;
  up: boolean;
}

/** A token says who a node is for a day; half a day before it ends there is a new one. */
const TOKEN_TTL = "24h";
const TOKEN_RENEWAL_MS = 12 * 3_600_000;
const POLL_MS = 20;
/** Agents have no pods left when they are stopped, so that there is nothing to drain. */
const STOP_GRACE_MS = 2_000;

export class Cluster {
  readonly nodes: readonly ClusterNode[];
  readonly #config: LocalConfig;
  readonly #names: Names;
  readonly #ledger: Ledger;
  readonly #events: ClusterEvents;
  readonly #agents = new Map<string, NodeAgent>();
  readonly #ending = new AbortController();
  readonly #listening = Promise.withResolvers<void>();
  readonly #controlReady = Promise.withResolvers<void>();
  readonly #questions = new ControlQuestions();
  #isControlReady = false;
  #problems: readonly ControlProblem[] = [];
  #fabric: SupervisedProcess | undefined;
  #fabricInput: NodeJS.WritableStream | undefined;
  #control: SupervisedProcess | undefined;
  #zone: Zone = {};
  #renewal: NodeJS.Timeout | undefined;

  constructor(config: LocalConfig, names: Names, ledger: Ledger, events: ClusterEvents) {
    this.#config = config;
    this.#names = names;
    this.#ledger = ledger;
    this.#events = events;
    this.nodes = Array.from({ length: config.nodes }, (_, index) => {
      const name = nodeName(index + 1);
      const agent = config.mesh ? new AgentClient(names.agentSocket(name)) : undefined;
      const prober = config.mesh ? this.#proberOf(name) : undefined;
      return { number: index + 1, name, netns: names.netns(name), agent, prober };
    });
  }

  /** Namespaces and links: from then on pods can be made. */
  async makeNetworks(): Promise<void> {
    const netns = [this.#names.netns(FABRIC), ...this.nodes.map((node) => node.netns)];
    const pinDirs = this.#config.mesh ? this.nodes.map(({ name }) => this.#names.pinDir(name)) : [];
    await this.#ledger.add({ netns, cgroups: [this.#names.cgroup], pinDirs });
    await addNetns(netns);
    await ipBatch(fabricLinks(this.nodes), this.#names.netns(FABRIC));
    await Promise.all([
      ...netns.map((name) => setSysctls(name, ROUTER_SETTINGS)),
      ...this.nodes.map(({ number, netns: own }) => {
        const others = this.nodes.map((node) => node.number).filter((other) => other !== number);
        return ipBatch(nodeLinks(number, others), own);
      }),
    ]);
  }

  /**
   * DNS and, with a mesh, control and agents. Resolves once all of them serve.
   *
   * Agents do not wait for control: pods are enrolled, and start, while it is still starting.
   */
  async startProcesses(): Promise<void> {
    const { mesh } = this.#config;
    await Promise.all([this.#startFabric(), mesh ? this.#startControl() : undefined]);
    await Promise.all([
      this.#listening.promise,
      mesh ? this.#controlReady.promise : undefined,
      mesh ? this.#startAgents() : undefined,
    ]);
  }

  async #startAgents(): Promise<void> {
    await this.#writeTokens();
    if (this.#ending.signal.aborted) return;
    this.#renewal = setInterval(() => {
      this.#writeTokens().catch((error: unknown) => this.#events.onNote(reasonOf(error)));
    }, TOKEN_RENEWAL_MS);
    this.#renewal.unref();
    // First: the agents attach to their cgroups.
    await Promise.all(this.nodes.map(({ prober }) => prober?.start()));
    await Promise.all(this.nodes.map((node) => this.#startAgent(node)));
    await Promise.all([...this.#agents.values()].map(({ firstUp }) => firstUp.promise));
  }

  setZone(zone: Zone): void {
    this.#zone = zone;
    this.#tellFabric({ kind: "zone", zone });
  }

  /**
   * What control says of all that has been written for it.
   *
   * @returns undefined where it says nothing until `signal` is aborted, and without a mesh
   */
  async askControl(signal: AbortSignal): Promise<ControlState | undefined> {
    if (!this.#config.mesh) return undefined;
    const either = AbortSignal.any([signal, this.#ending.signal]);
    return this.#questions.ask((number) => this.#tellFabric({ kind: "ask", number }), either);
  }

  agentStatus(node: string): AgentStatus | null {
    const agent = this.#agents.get(node);
    if (!this.#config.mesh) return null;
    return {
      pid: agent?.process.pid ?? null,
      up: agent?.up ?? false,
      restarts: agent?.process.restarts ?? 0,
      draining: agent?.process.formerPids ?? [],
      socket: this.#names.agentSocket(node),
      log: this.#agentLog(node),
    };
  }

  /**
   * Starts a new agent beside the one of a node, and resolves once it has taken over. The old one
   * serves its connections to their end.
   *
   * @throws MeshError `REQUEST_REFUSED`, `COMMAND_FAILED`; the old one then goes on
   */
  async upgradeAgent(name: string): Promise<AgentUpgrade> {
    const node = this.nodes.find((each) => each.name === name);
    const agent = this.#agents.get(name);
    const client = node?.agent;
    if (agent === undefined || client === undefined) {
      const reason = this.#config.mesh ? "there is no such node" : "there is no mesh";
      throw new MeshError("REQUEST_REFUSED", `Cannot upgrade "${name}": ${reason}`);
    }
    const from = agent.process.pid ?? null;
    const to = await agent.process.replace(async (pid) => {
      // Whoever does not answer is busy handing over.
      return (await client.pidInCharge().catch(() => undefined)) === pid;
    });
    return { node: name, from, to };
  }

  get controlStatus(): ControlStatus | null {
    if (!this.#config.mesh) return null;
    return {
      pid: this.#control?.pid ?? null,
      ready: this.#isControlReady,
      restarts: this.#control?.restarts ?? 0,
      addresses: [CONTROL_ADDRESS.ipv4, CONTROL_ADDRESS.ipv6],
      log: this.#controlLog,
    };
  }

  async stop(): Promise<void> {
    this.#ending.abort();
    clearInterval(this.#renewal);
    // Whoever still waits for them goes on, and finds that it is over.
    this.#listening.resolve();
    this.#controlReady.resolve();
    const agents = [...this.#agents.values()];
    for (const { firstUp } of agents) firstUp.resolve();
    await Promise.all([
      ...agents.map(({ process }) => process.stop(STOP_GRACE_MS)),
      ...this.nodes.map(({ prober }) => prober?.stop(STOP_GRACE_MS)),
    ]);
    await Promise.all([this.#control?.stop(STOP_GRACE_MS), this.#fabric?.stop(STOP_GRACE_MS)]);
  }

  async #startFabric(): Promise<void> {
    const script = join(import.meta.dirname, "fabric", "main.ts");
    const control = this.#config.mesh ? [`http://${CONTROL_ADDRESS.ipv4}:${ADMIN_PORT}`] : [];
    this.#fabric = new SupervisedProcess({
      name: "fabric",
      place: {
        cgroup: join(this.#names.placeCgroup(FABRIC), "dns"),
        netnsPath: netnsPath(this.#names.netns(FABRIC)),
      },
      command: [process.execPath, script, ...control],
      environment: this.#config.ownEnvironment,
      logPath: join(this.#names.stateDir, "fabric.log"),
      piped: true,
      onStart: ({ stdin, stdout }) => {
        if (stdin === null || stdout === null) throw new TypeError("the fabric has no pipes");
        this.#fabricInput = stdin;
        stdin.on("error", () => undefined); // it ended: a new one is started, and told all again
        readJsonLines(stdout, (value) => {
          this.#hear(value as FromFabric); // from our own process, by the types of messages.ts
        });
        this.#tellFabric({ kind: "zone", zone: this.#zone });
        this.#tellFabric({ kind: "ask", number: this.#questions.asked });
      },
      onNote: this.#events.onNote,
    });
    await this.#fabric.start();
  }

  #tellFabric(message: ToFabric): void {
    if (this.#fabricInput?.writable) writeJsonLine(this.#fabricInput, message);
  }

  #hear(message: FromFabric): void {
    switch (message.kind) {
      case "listening":
        this.#listening.resolve();
        break;
      case "control":
        this.#isControlReady = message.ready;
        if (!message.ready) break;
        this.#controlReady.resolve();
        this.#takeProblems(message.problems);
        this.#questions.hear(message, message.answers);
        break;
    }
  }

  #takeProblems(problems: readonly ControlProblem[]): void {
    if (JSON.stringify(problems) === JSON.stringify(this.#problems)) return;
    this.#problems = problems;
    this.#events.onProblems(problems);
  }

  get #controlLog(): string {
    return join(this.#names.stateDir, "control.log");
  }

  #agentLog(node: string): string {
    return join(this.#names.nodeDir(node), "agent.log");
  }

  async #startControl(): Promise<void> {
    await mkdir(this.#names.controlDir, { recursive: true, mode: 0o700 });
    this.#control = new SupervisedProcess({
      name: "control",
      place: {
        cgroup: join(this.#names.placeCgroup(FABRIC), "control"),
        netnsPath: netnsPath(this.#names.netns(FABRIC)),
      },
      command: [process.execPath, join(PROJECT, "control", "main.ts")],
      environment: {
        ...this.#config.ownEnvironment,
        AQUIFER_SOURCE: "directory",
        AQUIFER_SOURCE_DIRECTORIES: this.#names.objectsDir,
        AQUIFER_STATE_DIR: this.#names.controlDir,
        AQUIFER_DISCOVERY_ADDRESS: `[::]:${DISCOVERY_PORT}`,
        AQUIFER_ADMIN_ADDRESS: `[::]:${ADMIN_PORT}`,
        AQUIFER_SERVER_NAMES: [CONTROL_ADDRESS.ipv4, CONTROL_ADDRESS.ipv6].join(","),
        ...this.#config.controlEnvironment,
      },
      logPath: this.#controlLog,
      onStart: () => {
        this.#isControlReady = false;
      },
      onNote: this.#events.onNote,
    });
    await this.#control.start();
  }

  async #writeTokens(): Promise<void> {
    const script = join(PROJECT, "control", "main.ts");
    const env = { ...this.#config.ownEnvironment, AQUIFER_STATE_DIR: this.#names.controlDir };
    await Promise.all(
      this.nodes.map(async ({ name }) => {
        const args = [script, "token", "--node", name, "--ttl", TOKEN_TTL];
        const token = await run(process.execPath, args, { env });
        await mkdir(this.#names.nodeDir(name), { recursive: true, mode: 0o700 });
        await writeWhole(this.#tokenFile(name), token.trim(), { mode: 0o600 });
      }),
    );
  }

  #tokenFile(node: string): string {
    return join(this.#names.nodeDir(node), "token");
  }

  #proberCgroup(node: string): string {
    return join(this.#names.placeCgroup(node), "prober");
  }

  #proberOf(node: string): NodeProber {
    return new NodeProber({
      node,
      place: {
        cgroup: this.#proberCgroup(node),
        netnsPath: netnsPath(this.#names.netns(node)),
      },
      environment: this.#config.ownEnvironment,
      logPath: join(this.#names.nodeDir(node), "prober.log"),
      onNote: (note) => this.#events.onNote(note),
    });
  }

  async #startAgent(node: ClusterNode): Promise<void> {
    const dir = this.#names.nodeDir(node.name);
    const root = join(this.#names.controlDir, "root-cert.pem");
    const server = `https://${CONTROL_ADDRESS.ipv4}:${DISCOVERY_PORT}`;
    await mkdir(join(dir, "state"), { recursive: true, mode: 0o700 });
    const supervised = new SupervisedProcess({
      name: `agent of ${node.name}`,
      place: {
        // Below the cgroup its programs are attached to: they see the agent's own sockets too.
        cgroup: join(this.#names.placeCgroup(node.name), "agent"),
        netnsPath: netnsPath(node.netns),
      },
      command: [process.execPath, join(PROJECT, "agent", "main.ts")],
      environment: {
        ...this.#config.ownEnvironment,
        XDS_ADDRESS: server,
        XDS_ROOT_CA: root,
        CA_ADDRESS: server,
        CA_ROOT_CA: root,
        AUTH_TOKEN: this.#tokenFile(node.name),
        CLUSTER_ID: "Kubernetes",
        NODE_NAME: node.name,
        INSTANCE_IP: nodeAddress(node.number).ipv4,
        POD_NAME: `aquifer-agent-${node.name}`,
        POD_NAMESPACE: "istio-system",
        SERVICE_ACCOUNT: "aquifer-agent",
        AQUIFER_AGENT_SOCKET: this.#names.agentSocket(node.name),
        AQUIFER_STATE_DIR: join(dir, "state"),
        AQUIFER_CGROUP_ROOT: this.#names.placeCgroup(node.name),
        AQUIFER_PROBE_CGROUP: this.#proberCgroup(node.name),
        AQUIFER_PIN_DIR: this.#names.pinDir(node.name),
        ...this.#config.agentEnvironment,
      },
      logPath: this.#agentLog(node.name),
      onStart: () => {
        this.#waitForAgent(node).catch((error: unknown) => this.#events.onNote(reasonOf(error)));
      },
      onNote: this.#events.onNote,
    });
    const firstUp = Promise.withResolvers<void>();
    this.#agents.set(node.name, { process: supervised, firstUp, up: false });
    await supervised.start();
  }

  /** Until it answers, or dies: the one that is started then is waited for anew. */
  async #waitForAgent(node: ClusterNode): Promise<void> {
    const agent = this.#agents.get(node.name);
    const pid = agent?.process.pid;
    if (agent === undefined || node.agent === undefined) return;
    agent.up = false;
    for (;;) {
      await delay(POLL_MS);
      if (this.#ending.signal.aborted || agent.process.pid !== pid) return;
      const answers = await node.agent.check().then(
        () => true,
        () => false, // not yet
      );
      if (!answers || agent.process.pid !== pid) continue;
      agent.up = true;
      agent.firstUp.resolve();
      this.#events.onAgentUp(node);
      return;
    }
  }
}
