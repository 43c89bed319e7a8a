/**
 * Starts the agent and ends it.
 *
 * Pods of the last run are brought back before anything is asked of control: whoever connects to
 * them, or from them, is refused until then.
 */
import { createRequire } from "node:module";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { reasonOf } from "#core/errors.ts";
import { claimAddress, type Netns } from "#native/kernel/index.ts";
import { type CertificateClient, createCertificateClient } from "#wire/ca/client.ts";
import { createCsr } from "#wire/ca/csr.ts";
import { createHboneEngine } from "#wire/hbone/node-engine.ts";
import { type DiscoveryClient, startDiscoveryClient } from "#wire/xds/client.ts";
import { configDump } from "./admin/config-dump.ts";
import { Readiness } from "./admin/readiness.ts";
import { type AdminServers, serveAdmin } from "./admin/servers.ts";
import type { AgentConfig } from "./config.ts";
import { controlEndpoint } from "./control-endpoint.ts";
import { DirectLoop } from "./direct/direct-loop.ts";
import { Flows } from "./flow/flows.ts";
import { CertificateStore } from "./identity/certificate-store.ts";
import { WantedIdentities } from "./identity/wanted.ts";
import { cgroup2Mount } from "./kernel/cgroup.ts";
import type { Datapath } from "./kernel/datapath.ts";
import type { DirectTables } from "./kernel/direct-tables.ts";
import { openRung } from "./kernel/rung.ts";
import { formatLogLevels, type Loggers } from "./log.ts";
import { type AgentMetrics, createMetrics } from "./metrics.ts";
import type { DnsEvents } from "./proxy/dns-server.ts";
import type { PodDnsOptions } from "./proxy/pod-dns.ts";
import type { PodProxy } from "./proxy/pod-proxy.ts";
import { createProxyRuntime, type ProxyRuntime } from "./proxy/runtime.ts";
import { SYSTEM_TIMERS } from "./timers.ts";
import { EnrollmentLoop } from "./workload/enrollment-loop.ts";
import { createKernelHost, openNetnsIfThere } from "./workload/kernel-host.ts";
import { type LocalApi, serveLocalApi } from "./workload/local-api.ts";
import type { Pod } from "./workload/pod.ts";
import { createPodStore, readBootId } from "./workload/pod-store.ts";
import { watchProbes } from "./workload/probe-watch.ts";

export interface Agent {
  /** Lets connections end within the drain limit. Captures stay: new ones are refused. */
  stop(): Promise<void>;
}

/** The parts of a running agent, in the order in which they are made. */
interface Parts {
  readonly config: AgentConfig;
  readonly loggers: Loggers;
  readonly datapath: Datapath;
  readonly authority: CertificateClient;
  readonly certificates: CertificateStore;
  readonly runtime: ProxyRuntime;
  readonly pods: EnrollmentLoop<Netns, PodProxy>;
  readonly metrics: AgentMetrics;
  readonly flows: Flows;
  /** Undefined where capture knows no direct connections. */
  readonly direct: DirectLoop | undefined;
  readonly progress: Progress;
}

/** What readiness waits for. */
interface Progress {
  hasDiscovered: boolean;
  hasRestored: boolean;
  isStopping: boolean;
  /** Pods of the last run, as long as they have not come up or gone. */
  adopted: readonly Pod[];
}

/** @param onQuit  somebody asked for an orderly end over the admin server */
export async function startAgent(
  config: AgentConfig,
  loggers: Loggers,
  onQuit: () => void,
): Promise<Agent> {
  const parts = createParts(config, loggers);
  const log = loggers.for("agent");
  let admin: AdminServers | undefined;
  let discovery: DiscoveryClient | undefined;
  let api: LocalApi | undefined;
  const stopProbes =
    config.probeCgroup === undefined
      ? undefined
      : watchProbes(parts.datapath, SYSTEM_TIMERS, loggers.for("enrolment"));
  const stop = async () => {
    parts.progress.isStopping = true;
    // At once: a successor that starts while this agent drains becomes the one who is told.
    parts.flows.stop();
    stopProbes?.();
    await api?.close();
    await parts.pods.close(config.drainLimitMs);
    await discovery?.stop();
    parts.certificates.close();
    parts.authority.close();
    parts.runtime.context.live.close();
    parts.direct?.close();
    parts.datapath.close();
    await admin?.close();
  };
  try {
    admin = await serveAdmin(adminOptions(parts, onQuit));
    log.info(admin.addresses, "admin servers listen");
    restorePods(parts);
    parts.flows.start();
    discovery = startDiscovery(parts);
    api = await serveLocalApi(config.socketPath, parts.pods, loggers.for("enrolment"));
    log.info({ node: config.node.name, socket: config.socketPath, version: VERSION }, "started");
    return { stop };
  } catch (error) {
    await stop();
    throw error;
  }
}

function createParts(config: AgentConfig, loggers: Loggers): Parts {
  const store = createPodStore(config.stateDir, readBootId());
  const datapath = openDatapathOf(config, loggers);
  const authority = createCertificateClient(controlEndpoint(config.ca, config));
  const certificates = new CertificateStore({
    request: (request, signal) => authority.request(request, signal),
    createCsr,
    timers: SYSTEM_TIMERS,
    random: Math.random,
    ttlMs: config.certificateTtlMs,
    log: loggers.for("identity"),
  });
  const { network, clusterId, drainLimitMs } = config;
  const timers = SYSTEM_TIMERS;
  const random = Math.random;
  const runtime = createProxyRuntime({ network, clusterId, certificates, timers, random, loggers });
  const { context } = runtime;
  const wanted = new WantedIdentities<Pod>((pod) => context.state.localWorkload(pod));
  const retain = () => certificates.retain(wanted.of(pods.list().map(({ pod }) => pod)));
  context.state.onChange(retain);
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
  const pods = new EnrollmentLoop<Netns, PodProxy>({
    host,
    store,
    timers,
    log: loggers.for("enrolment"),
    drainLimitMs,
    onChange: () => {
      retain();
      direct?.changed();
    },
  });
  const flows = new Flows({
    open: () => datapath.openFlows(),
    ...{ state: context.state, connections: context.connections, timers },
    podOf: (netns) => pods.proxies().find((proxy) => proxy.netnsCookie === netns)?.pod,
    policyOf: () => undefined,
    log: loggers.for("flows"),
  });
  const direct = datapath.direct && directLoop(datapath.direct, runtime, pods, loggers);
  const metrics = createMetrics(metricsSources(runtime, pods, certificates, datapath, flows));
  const progress = { hasDiscovered: false, hasRestored: false, isStopping: false, adopted: [] };
  return {
    ...{ config, loggers, datapath, authority, certificates, direct },
    ...{ runtime, pods, metrics, progress, flows },
  };
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

function restorePods({ pods, datapath, progress, loggers }: Parts): void {
  pods.restore();
  const known = new Set<string>(pods.list().map(({ pod }) => pod.uid));
  for (const uid of datapath.adopted().filter((pinned) => !known.has(pinned))) {
    // Whose it is was lost with the state directory. It stays blocked: un-enrolling it would let
    // its traffic out unchecked.
    loggers.for("enrolment").warn({ pod: uid }, "captured pod is not known: put or delete it");
  }
  progress.adopted = pods.list().map(({ pod }) => pod);
  progress.hasRestored = true;
}

function startDiscovery(parts: Parts): DiscoveryClient {
  const { config, loggers, runtime, metrics, progress, direct } = parts;
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
          metrics.xdsRejected(typeUrl);
          log.error({ resource: name, type: typeUrl, error: reason }, "resource refused");
        }
      },
      onConnection: (change) => {
        if (change.kind !== "disconnected") return log.info(change.kind);
        const { reason, error, retryDelayMs } = change;
        metrics.xdsTerminated(reason);
        const fields = { reason, error: reasonOf(error), retryDelayMs: Math.round(retryDelayMs) };
        return log.warn(fields, "disconnected");
      },
      onMessage: (typeUrl, bytes) => metrics.xdsMessage(typeUrl, bytes),
    },
  });
  void discovery.ready.then(() => {
    progress.hasDiscovered = true;
    direct?.start();
    log.info("first state received");
  });
  return discovery;
}

function adminOptions(parts: Parts, onQuit: () => void) {
  const { config, loggers, runtime, certificates, pods, metrics, progress } = parts;
  const { adminAddress, statsAddress, readinessAddress } = config;
  const readiness = new Readiness();
  readiness.require("agent is shutting down", () => !progress.isStopping);
  readiness.require("discovery", () => progress.hasDiscovered);
  readiness.require("pods of the last run", () => {
    return progress.hasRestored && progress.adopted.every(({ uid }) => pods.isUpOrGone(uid));
  });
  return {
    ...{ adminAddress, statsAddress, readinessAddress, readiness, loggers, metrics, onQuit },
    configDump: () =>
      configDump({
        index: runtime.context.state.index,
        certificates: certificates.status(),
        pods: pods.list(),
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
