/**
 * Starts the agent and ends it, and changes one for another while pods are served.
 *
 * Pods of the last run are brought back before anything is asked of control: whoever connects to
 * them, or from them, is refused until then. Where an agent is running it is the other way round:
 * it serves them until this one knows as much as it does.
 */
import { mkdirSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { MeshError, reasonOf } from "#core/errors.ts";
import { claimAddress, type Netns } from "#native/kernel/index.ts";
import { createHboneEngine } from "#wire/hbone/node-engine.ts";
import type { DiscoveryClient } from "#wire/xds/client.ts";
import { configDump } from "./admin/config-dump.ts";
import { Readiness } from "./admin/readiness.ts";
import type { AdminServers } from "./admin/servers.ts";
import type { AgentConfig } from "./config.ts";
import { controlEndpoint } from "./control-endpoint.ts";
import { DirectLoop } from "./direct/direct-loop.ts";
import { Flows } from "./flow/flows.ts";
import { CertificateStore } from "./identity/certificate-store.ts";
import { LazyAuthority } from "./identity/lazy-authority.ts";
import { WantedIdentities } from "./identity/wanted.ts";
import { cgroup2Mount } from "./kernel/cgroup.ts";
import { checkPins, type Datapath } from "./kernel/datapath.ts";
import type { DirectTables } from "./kernel/direct-tables.ts";
import { openRung } from "./kernel/rung.ts";
import { formatLogLevels, type Logger, type Loggers } from "./log.ts";
import { type AgentMetrics, createMetrics } from "./metrics.ts";
import type { DnsEvents } from "./proxy/dns-server.ts";
import type { PodDnsOptions } from "./proxy/pod-dns.ts";
import type { PodProxy } from "./proxy/pod-proxy.ts";
import { createProxyRuntime, type ProxyRuntime } from "./proxy/runtime.ts";
import { type Estate, serveTakeOver, type TakeOverServer } from "./takeover/predecessor.ts";
import { meetRunningAgent, type RunningAgent } from "./takeover/successor.ts";
import { SYSTEM_TIMERS } from "./timers.ts";
import { EnrollmentLoop } from "./workload/enrollment-loop.ts";
import { createKernelHost, openNetnsIfThere } from "./workload/kernel-host.ts";
import type { LocalApi } from "./workload/local-api.ts";
import type { Pod } from "./workload/pod.ts";
import { createPodStore, type PodStore, readBootId } from "./workload/pod-store.ts";
import { watchProbes } from "./workload/probe-watch.ts";

export interface Agent {
  /**
   * Lets connections end within the drain limit. Captures stay: new ones are refused until another
   * agent is there. Where one has taken over already, serves to their end those that came here.
   */
  stop(): Promise<void>;
}

export interface AgentEvents {
  /** Somebody asked for an orderly end over the admin server. */
  readonly onQuit: () => void;
  /** Another agent has taken over, and the last connection of this one has ended. */
  readonly onReplaced: () => void;
}

/** What an agent knows and whom it asks: nothing that only one agent of a node may hold. */
interface Knowledge {
  readonly config: AgentConfig;
  readonly loggers: Loggers;
  readonly authority: LazyAuthority;
  readonly certificates: CertificateStore;
  readonly runtime: ProxyRuntime;
  readonly store: PodStore;
  /** Whose identities are wanted: first those on disk, later those that are served. */
  pods: () => readonly Pod[];
  readonly retain: () => void;
}

/** The parts of an agent that serves pods. */
interface Parts extends Knowledge {
  readonly datapath: Datapath;
  readonly enrolment: EnrollmentLoop<Netns, PodProxy>;
  readonly metrics: AgentMetrics;
  readonly flows: Flows;
  /** What only the agent in charge runs; see `AgentLife`. */
  readonly direct: DirectHolder;
}

interface DirectHolder {
  /** The one writer of the kernel's tables of direct connections, while this agent is in charge. */
  loop: DirectLoop | undefined;
  readonly open: () => DirectLoop | undefined;
}

/** What readiness waits for. */
interface Progress {
  hasDiscovered: boolean;
  hasRestored: boolean;
  isStopping: boolean;
  /** Pods of the last run, as long as they have not come up or gone. */
  adopted: readonly Pod[];
}

/** The control server answers in well under a second, and the authority too. */
const PREPARATION_LIMIT_MS = 30_000;
/** Another agent that gives its ports up does so at once. */
const PORT_WAIT_MS = 5_000;
const REPORT_MS = 60_000;

/** Puts an agent in charge of this node's pods, in place of the one that may be running. */
export async function startAgent(
  config: AgentConfig,
  loggers: Loggers,
  events: AgentEvents,
): Promise<Agent> {
  checkPins(config.pinDir);
  mkdirSync(config.stateDir, { recursive: true, mode: 0o700 });
  const life = new AgentLife(createKnowledge(config, loggers), events);
  try {
    await life.start();
    return life;
  } catch (error) {
    // Where another agent is running, it has them all back as soon as this process is gone.
    await life.abandon();
    throw error;
  }
}

class AgentLife implements Agent, Estate {
  readonly #knowledge: Knowledge;
  readonly #events: AgentEvents;
  readonly #log: Logger;
  readonly #progress: Progress;
  #parts: Parts | undefined;
  #discovery: DiscoveryClient | undefined;
  #admin: AdminServers | undefined;
  #api: LocalApi | undefined;
  #takeOver: TakeOverServer | undefined;
  #retired: Promise<void> | undefined;
  #stopProbes: () => void = () => undefined;

  constructor(knowledge: Knowledge, events: AgentEvents) {
    this.#knowledge = knowledge;
    this.#events = events;
    this.#log = knowledge.loggers.for("agent");
    this.#progress = {
      ...{ hasDiscovered: false, hasRestored: false, isStopping: false },
      adopted: [],
    };
  }

  async start(): Promise<void> {
    const { config } = this.#knowledge;
    const path = join(config.stateDir, "take-over.sock");
    const running = await meetRunningAgent(path);
    const served = running === undefined ? [] : await this.#takeOverFrom(running);
    // Whoever connects to a pod of the last run, or from it, is refused until it is restored.
    const parts = createParts(this.#knowledge);
    this.#parts = parts;
    restorePods(parts, this.#progress);
    checkServed(parts, served);
    this.#startSole(parts);
    await this.#serve(parts, running === undefined ? 0 : PORT_WAIT_MS);
    await running?.finish();
    const [timers, log] = [SYSTEM_TIMERS, this.#log];
    this.#takeOver = await serveTakeOver({ path, estate: this, timers, log });
    this.#discovery ??= await this.#startDiscovery();
    const facts = { node: config.node.name, socket: config.socketPath, version: VERSION };
    const replaced = running === undefined ? {} : { predecessor: running.pid };
    log.info({ ...facts, ...replaced }, running === undefined ? "started" : "taken over");
  }

  /** What may be done by one process at a time: kernel tables, marks, and who hears of flows. */
  #startSole({ config, loggers, datapath, direct, flows }: Parts): void {
    flows.start();
    direct.loop = direct.open();
    if (this.#progress.hasDiscovered) direct.loop?.start();
    if (config.probeCgroup === undefined) return;
    this.#stopProbes = watchProbes(datapath, SYSTEM_TIMERS, loggers.for("enrolment"));
  }

  #stopSole(): void {
    this.#parts?.flows.stop();
    const direct = this.#parts?.direct;
    direct?.loop?.close();
    if (direct) direct.loop = undefined;
    this.#stopProbes();
  }

  #startDiscovery(): Promise<DiscoveryClient> {
    const metrics = () => this.#parts?.metrics;
    const onDiscovered = () => this.#parts?.direct.loop?.start();
    return startDiscovery(this.#knowledge, this.#progress, metrics, onDiscovered);
  }

  /** Nothing of the running agent changes before this one could serve as well as that does. */
  async #takeOverFrom(running: RunningAgent): Promise<readonly string[]> {
    this.#log.info({ predecessor: running.pid }, "another agent is running: taking over from it");
    const stored = this.#knowledge.store.read();
    this.#knowledge.pods = () => stored;
    this.#discovery = await this.#startDiscovery();
    await waitUntilPrepared(this.#knowledge, this.#progress, running);
    // Loaded now, so that nothing has to be while nobody answers.
    await Promise.all([import("./admin/servers.ts"), import("./workload/local-api.ts")]);
    return running.release();
  }

  async #serve(parts: Parts, portWaitMs: number): Promise<void> {
    const { config, loggers, enrolment } = parts;
    const [{ serveAdmin }, { serveLocalApi }] = await Promise.all([
      import("./admin/servers.ts"),
      import("./workload/local-api.ts"),
    ]);
    const log = loggers.for("enrolment");
    const isInCharge = () => this.#takeOver !== undefined;
    this.#api = await serveLocalApi(config.socketPath, enrolment, log, isInCharge);
    const options = adminOptions(parts, this.#progress, this.#events.onQuit);
    this.#admin = await serveAdmin({ ...options, portWaitMs });
    this.#log.info(this.#admin.addresses, "admin servers listen");
  }

  async release(): Promise<readonly string[]> {
    const { enrolment } = this.#served();
    enrolment.pause("another agent takes over");
    this.#stopSole();
    // Their paths and ports are free at once. What is being answered may take longer.
    void this.#api?.close();
    void this.#admin?.close();
    return enrolment.list().flatMap(({ pod, state }) => (state === "up" ? [pod.uid] : []));
  }

  async reclaim(): Promise<void> {
    const parts = this.#served();
    parts.enrolment.resume();
    this.#startSole(parts);
    await this.#serve(parts, PORT_WAIT_MS);
  }

  cede(): void {
    this.#progress.isStopping = true;
    this.#retired = this.#retire();
    void this.#retired.then(this.#events.onReplaced);
  }

  async #retire(): Promise<void> {
    const { config, enrolment } = this.#served();
    const report = setInterval(() => {
      const open = enrolment.proxies().map(({ engine }) => engine.load().relays);
      const connections = open.reduce((sum, count) => sum + count, 0);
      this.#log.info({ connections }, "waiting for connections to end");
    }, REPORT_MS);
    await enrolment.retire(config.upgradeDrainLimitMs);
    clearInterval(report);
    this.#takeOver?.close();
    await this.#close();
  }

  async stop(): Promise<void> {
    await this.#takeOver?.settled();
    if (this.#retired) return this.#retired;
    const { config, enrolment } = this.#served();
    this.#progress.isStopping = true;
    this.#takeOver?.close();
    await this.#api?.close();
    await enrolment.close(config.drainLimitMs);
    this.#stopSole();
    await this.#close();
    await this.#admin?.close();
  }

  /** Before it has started. */
  async abandon(): Promise<void> {
    this.#stopSole();
    await Promise.all([this.#api?.close(), this.#admin?.close()]);
    await this.#parts?.enrolment.close(0);
    await this.#close();
  }

  /** Policies and certificates are followed as long as a connection lives. */
  async #close(): Promise<void> {
    const { authority, certificates, runtime } = this.#knowledge;
    await this.#discovery?.stop();
    certificates.close();
    await authority.close();
    runtime.context.live.close();
    this.#parts?.datapath.close();
  }

  #served(): Parts {
    if (this.#parts === undefined) throw new TypeError("the agent has not started");
    return this.#parts;
  }
}

function createKnowledge(config: AgentConfig, loggers: Loggers): Knowledge {
  const { network, clusterId } = config;
  const [timers, random] = [SYSTEM_TIMERS, Math.random];
  const authority = new LazyAuthority(controlEndpoint(config.ca, config));
  const certificates = new CertificateStore({
    request: (request, signal) => authority.request(request, signal),
    createCsr: (identity) => authority.createCsr(identity),
    ...{ timers, random },
    ttlMs: config.certificateTtlMs,
    log: loggers.for("identity"),
  });
  const runtime = createProxyRuntime({ network, clusterId, certificates, timers, random, loggers });
  const { state } = runtime.context;
  const wanted = new WantedIdentities<Pod>((pod) => state.localWorkload(pod));
  const knowledge: Knowledge = {
    ...{ config, loggers, authority, certificates, runtime },
    store: createPodStore(config.stateDir, readBootId()),
    pods: () => [],
    retain: () => certificates.retain(wanted.of(knowledge.pods())),
  };
  state.onChange(knowledge.retain);
  return knowledge;
}

function createParts(knowledge: Knowledge): Parts {
  const { config, loggers, runtime, store, certificates, retain } = knowledge;
  const { context } = runtime;
  const datapath = openDatapathOf(config, loggers);
  const { idleSessionMs: idleReleaseMs, ...tunnel } = config.tunnel;
  const host = createKernelHost({
    context,
    datapath,
    createEngine: () => createHboneEngine({ ...tunnel, idleReleaseMs }),
    ipv6: config.ipv6,
    dns: dnsOptions(config, datapath, {
      request: (labels) => metrics.dnsRequest(labels),
      upstreamRequest: (labels, isAnswered, durationMs) => {
        metrics.dnsUpstreamRequest(labels, isAnswered, durationMs);
      },
    }),
    onOpened: () => metrics.podStarted(),
    onDrained: () => metrics.podStopped(),
  });
  const enrolment = new EnrollmentLoop<Netns, PodProxy>({
    host,
    store,
    timers: SYSTEM_TIMERS,
    log: loggers.for("enrolment"),
    drainLimitMs: config.drainLimitMs,
    onChange: () => {
      retain();
      direct.loop?.changed();
    },
  });
  knowledge.pods = () => enrolment.list().map(({ pod }) => pod);
  const flows = new Flows({
    open: () => datapath.openFlows(),
    ...{ state: context.state, connections: context.connections, timers: SYSTEM_TIMERS },
    podOf: (netns) => enrolment.proxies().find((proxy) => proxy.netnsCookie === netns)?.pod,
    policyOf: () => undefined,
    log: loggers.for("flows"),
  });
  const sources = metricsSources(runtime, enrolment, certificates, datapath, flows);
  const metrics = createMetrics(sources);
  const direct: DirectHolder = {
    loop: undefined,
    open: () => datapath.direct && directLoop(datapath.direct, runtime, enrolment, loggers),
  };
  return { ...knowledge, datapath, enrolment, metrics, flows, direct };
}

/** Discovery has named the pods on disk, and each identity of theirs has its certificate. */
async function waitUntilPrepared(
  knowledge: Knowledge,
  progress: Progress,
  running: RunningAgent,
): Promise<void> {
  const { certificates, retain } = knowledge;
  const deadlineMs = Date.now() + PREPARATION_LIMIT_MS;
  // Without it nobody serves: there is nothing to wait for any more.
  while (!running.isGone) {
    if (progress.hasDiscovered) retain();
    const missing = certificates.status().find(({ state }) => state !== "Available");
    if (progress.hasDiscovered && missing === undefined) return;
    if (Date.now() > deadlineMs) {
      const reason = missing
        ? `there is no certificate for "${missing.identity}": ${missing.error ?? "no answer"}`
        : "discovery has not answered";
      throw new MeshError("CONTROL_UNREACHABLE", `Cannot take over: ${reason}`);
    }
    await delay(PREPARATION_POLL_MS);
  }
}

const PREPARATION_POLL_MS = 10;

/** What the other agent serves and this one cannot is reason enough to leave it to the other. */
function checkServed({ enrolment }: Parts, served: readonly string[]): void {
  const pending = enrolment.list().filter(({ state }) => state === "pending");
  const lost = pending.find(({ pod }) => served.includes(pod.uid));
  if (lost === undefined) return;
  const attempt = `Cannot take over pod "${lost.pod.uid}"`;
  throw new MeshError("KERNEL_CALL_FAILED", `${attempt}: ${lost.reason}`);
}

function openDatapathOf(config: AgentConfig, loggers: Loggers): Datapath {
  const { rung, why, datapath } = openRung({
    wanted: config.rung,
    ebpf: {
      pinDir: config.pinDir,
      objectDir: fileURLToPath(new URL("../build/bpf", import.meta.url)),
      probes: config.probeCgroup === undefined ? undefined : { cgroup: config.probeCgroup },
    },
    cgroupRoot: () => config.cgroupRoot ?? cgroup2Mount(),
    nftables: { recordDir: join(config.stateDir, "nftables"), bootId: readBootId() },
  });
  loggers.for("agent").info({ rung, why }, "pods are captured by way of");
  return datapath;
}

function dnsOptions(
  { dns }: AgentConfig,
  { rung }: Datapath,
  events: DnsEvents,
): PodDnsOptions | undefined {
  return dns.capture && rung === "ebpf"
    ? { forwardTimeoutMs: dns.forwardTimeoutMs, events, claimAddress }
    : undefined;
}

function directLoop(
  tables: DirectTables,
  { context: { state, counts, timers } }: ProxyRuntime,
  pods: EnrollmentLoop<Netns, PodProxy>,
  loggers: Loggers,
): DirectLoop {
  return new DirectLoop({
    tables,
    state,
    pods: () => pods.enrolled(),
    openNetns: openNetnsIfThere,
    timers,
    log: loggers.for("direct"),
    onClosed: () => {
      counts.closedByPolicy++;
    },
  });
}

function metricsSources(
  { context, traffic }: ProxyRuntime,
  pods: EnrollmentLoop<Netns, PodProxy>,
  certificates: CertificateStore,
  datapath: Datapath,
  flows: Flows,
) {
  const { state, connections, counts } = context;
  return {
    traffic,
    connections,
    counts,
    pods: () => {
      const states = pods.list().map((status) => status.state);
      const up = states.filter((each) => each === "up").length;
      return { up, pending: states.length - up };
    },
    engineLoads: () => pods.proxies().map(({ engine }) => engine.load()),
    engineKind: "node",
    rung: datapath.rung,
    datapathCounters: () => ({ ...datapath.counters(), ...datapath.guardCounters() }),
    dnsCounters: () => datapath.dnsCounters(),
    flows: () => flows.numbers(),
    unknownPolicies: () => {
      const workloads = pods.list().map(({ pod }) => state.localWorkload(pod));
      const unknown = workloads.flatMap((workload) =>
        workload ? state.unknownPolicies(workload) : [],
      );
      return new Set(unknown).size;
    },
    certificates: () => certificates.status(),
    version: VERSION,
  };
}

function restorePods({ enrolment, datapath, loggers }: Parts, progress: Progress): void {
  enrolment.restore();
  const known = new Set<string>(enrolment.list().map(({ pod }) => pod.uid));
  for (const uid of datapath.adopted().filter((pinned) => !known.has(pinned))) {
    // Whose it is was lost with the state directory. It stays blocked: un-enrolling it would let
    // its traffic out unchecked.
    loggers.for("enrolment").warn({ pod: uid }, "captured pod is not known: put or delete it");
  }
  progress.adopted = enrolment.list().map(({ pod }) => pod);
  progress.hasRestored = true;
}

/** Loaded when it is needed: pods of the last run do not wait for it. */
async function startDiscovery(
  { config, loggers, runtime }: Knowledge,
  progress: Progress,
  metrics: () => AgentMetrics | undefined,
  onDiscovered: () => void,
): Promise<DiscoveryClient> {
  const { startDiscoveryClient } = await import("#wire/xds/client.ts");
  const log = loggers.for("xds");
  const { node } = config;
  const discovery = startDiscoveryClient({
    endpoint: controlEndpoint(config.xds, config),
    node: {
      ip: node.ip,
      podName: node.podName,
      podNamespace: node.podNamespace,
      nodeName: node.name,
      metadata: { CLUSTER_ID: config.clusterId, ...node.metadata },
    },
    random: Math.random,
    handlers: {
      onUpdate: (update) => runtime.context.state.apply(update),
      onRejections: (rejections) => {
        for (const { typeUrl, name, reason } of rejections) {
          metrics()?.xdsRejected(typeUrl);
          log.error({ resource: name, type: typeUrl, error: reason }, "resource refused");
        }
      },
      onConnection: (change) => {
        if (change.kind !== "disconnected") return log.info(change.kind);
        const { reason, error, retryDelayMs } = change;
        metrics()?.xdsTerminated(reason);
        const fields = { reason, error: reasonOf(error), retryDelayMs: Math.round(retryDelayMs) };
        return log.warn(fields, "disconnected");
      },
      onMessage: (typeUrl, bytes) => metrics()?.xdsMessage(typeUrl, bytes),
    },
  });
  void discovery.ready.then(() => {
    progress.hasDiscovered = true;
    onDiscovered();
    log.info("first state received");
  });
  return discovery;
}

function adminOptions(parts: Parts, progress: Progress, onQuit: () => void) {
  const { config, loggers, runtime, certificates, enrolment, metrics } = parts;
  const { adminAddress, statsAddress, readinessAddress } = config;
  const readiness = new Readiness();
  readiness.require("agent is shutting down", () => !progress.isStopping);
  readiness.require("discovery", () => progress.hasDiscovered);
  readiness.require("pods of the last run", () => {
    return progress.hasRestored && progress.adopted.every(({ uid }) => enrolment.isUpOrGone(uid));
  });
  return {
    ...{ adminAddress, statsAddress, readinessAddress, readiness, loggers, metrics, onQuit },
    configDump: () =>
      configDump({
        index: runtime.context.state.index,
        certificates: certificates.status(),
        pods: enrolment.list(),
        connections: runtime.context.connections.open,
        config: describeConfig(config),
        version: VERSION,
      }),
  };
}

/** The settings without the token, and in words where they are not JSON. */
function describeConfig(config: AgentConfig) {
  const { xds, ca, token, log, ...rest } = config;
  const describe = ({ address, root, alternativeHostname }: AgentConfig["xds"]) => ({
    address: address.href,
    root: root.kind === "file" ? root.path : root.kind,
    alternativeHostname,
  });
  return {
    ...rest,
    xds: describe(xds),
    ca: describe(ca),
    token: token.kind === "file" ? token.path : "given as text",
    log: { format: log.format, levels: formatLogLevels(log.levels) },
  };
}

// package.json is ours; the version is a text there.
const VERSION = (createRequire(import.meta.url)("../package.json") as { version: string }).version;
