import {
  EnvReader,
  parseBoolean,
  parseDurationMs,
  parseIntegerIn,
  parseNonEmpty,
} from "#core/env.ts";
import { parseIp, parseSocketAddress, type SocketAddress } from "#core/ip.ts";
import type { WantedRung } from "./kernel/rung.ts";
import { type LogSettings, parseLogLevels } from "./log.ts";

/** Everything the agent is told from outside. Read once, in main.ts, and passed down from there. */
export interface AgentConfig {
  readonly xds: ServerConfig;
  readonly ca: ServerConfig;
  /** A token, or the path of the file it is read from for each connection. */
  readonly token: TokenSource;
  readonly clusterId: string;
  readonly node: NodeConfig;
  /** The network that this node's pods are in; "" is the default one. */
  readonly network: string;
  /** Life that is asked for each certificate; the server may grant less. */
  readonly certificateTtlMs: number;
  readonly log: LogSettings;
  /** How long connections may go on after SIGTERM, or after their pod has been un-enrolled. */
  readonly drainLimitMs: number;
  /** How long connections may go on after another agent has taken over; may be infinite. */
  readonly upgradeDrainLimitMs: number;
  readonly tunnel: TunnelConfig;
  readonly ipv6: boolean;
  readonly dns: DnsConfig;
  /** Unix socket of the API that enrols pods. */
  readonly socketPath: string;
  readonly stateDir: string;
  /** Undefined for the root of the cgroup2 tree. */
  readonly cgroupRoot: string | undefined;
  /** Of whoever probes this node's pods; undefined where probes are connections like others. */
  readonly probeCgroup: string | undefined;
  readonly pinDir: string;
  readonly rung: WantedRung;
  readonly adminAddress: SocketAddress;
  readonly statsAddress: SocketAddress;
  readonly readinessAddress: SocketAddress;
}

export interface ServerConfig {
  readonly address: URL;
  /** PEM text, the path of a file with it, or `SYSTEM`. */
  readonly root: RootSource;
  /** The name in the server's certificate, where it is not that of the address. */
  readonly alternativeHostname: string | undefined;
  /** Sent with each call, in lower case. */
  readonly headers: Readonly<Record<string, string>>;
}

export type RootSource =
  | { readonly kind: "file"; readonly path: string }
  | { readonly kind: "pem"; readonly text: string }
  | { readonly kind: "system" };

export type TokenSource =
  | { readonly kind: "file"; readonly path: string }
  | { readonly kind: "text"; readonly text: string };

/** What the discovery server is told about this node. */
export interface NodeConfig {
  readonly name: string;
  readonly ip: string;
  readonly podName: string;
  readonly podNamespace: string;
  readonly serviceAccount: string;
  /** From `ISTIO_META_*`, by the rest of the name. */
  readonly metadata: Readonly<Record<string, string>>;
}

export interface TunnelConfig {
  readonly streamsPerSessionMax: number;
  readonly idleSessionMs: number;
  readonly streamWindowBytes: number;
  readonly connectionWindowBytes: number;
  readonly frameBytesMax: number;
}

export interface DnsConfig {
  /** Whether the queries of pods are answered here. */
  readonly capture: boolean;
  /** How long a nameserver may take. */
  readonly forwardTimeoutMs: number;
}

type Environment = Readonly<Record<string, string | undefined>>;

/** Settings that mean something to a ztunnel and that this agent cannot honour, with the reason. */
const UNSUPPORTED: Readonly<Record<string, { unless: readonly string[]; reason: string }>> = {
  TLS12_ENABLED: { unless: ["false", "0"], reason: "only TLS 1.3 is supported" },
  PROXY_MODE: { unless: ["shared"], reason: 'only "shared" is supported' },
  LOCAL_XDS: { unless: [], reason: "static state is not supported" },
  LOCAL_XDS_PATH: { unless: [], reason: "static state is not supported" },
  FAKE_CA: { unless: ["false", "0"], reason: "there is no built-in test authority" },
  XDS_ON_DEMAND: { unless: ["false", "0"], reason: "discovery on demand is not supported" },
  UNSTABLE_ENABLE_SOCKS5: { unless: ["false", "0"], reason: "SOCKS5 is not supported" },
  CRL_PATH: { unless: [""], reason: "revocation lists are not supported" },
  COMPLIANCE_POLICY: { unless: [""], reason: "compliance policies are not supported" },
  PROXY_CONFIG: { unless: [""], reason: "set the single settings instead" },
  ENABLE_ORIG_SRC: { unless: ["true", "1"], reason: "the client address is always kept" },
};

/** @throws MeshError `SETTINGS_INVALID`, with every mistake */
export function readConfig(env: Environment): AgentConfig {
  const read = new EnvReader(env);
  const defaultAddress = "https://istiod.istio-system.svc:15012";
  const config: AgentConfig = {
    xds: readServer(env, read, "XDS", defaultAddress),
    ca: readServer(env, read, "CA", env.XDS_ADDRESS ?? defaultAddress),
    token: read.optional("AUTH_TOKEN", { kind: "file", path: TOKEN_FILE } as const, parseToken),
    clusterId: read.optional("CLUSTER_ID", "Kubernetes", parseNonEmpty),
    node: readNode(env, read),
    network: read.optional("NETWORK", "", String),
    certificateTtlMs: read.optional("SECRET_TTL", 24 * 3_600_000, parsePositiveDurationMs),
    log: {
      format: read.optional("LOG_FORMAT", "plain", parseLogFormat),
      levels: read.optional("RUST_LOG", parseLogLevels("info"), parseLogLevels),
    },
    drainLimitMs: readDrainLimitMs(read),
    upgradeDrainLimitMs: read.optional(
      "AQUIFER_DRAIN_LIMIT",
      Number.POSITIVE_INFINITY,
      parseDurationMs,
    ),
    tunnel: readTunnel(read),
    ipv6: read.optional("IPV6_ENABLED", true, parseBoolean),
    dns: {
      capture: read.optional("ISTIO_META_DNS_CAPTURE", true, parseBoolean),
      forwardTimeoutMs: read.optional("DNS_FORWARD_TIMEOUT", 5_000, parsePositiveDurationMs),
    },
    socketPath: read.optional("AQUIFER_AGENT_SOCKET", "/run/aquifer/agent.sock", parseSocketPath),
    stateDir: read.optional("AQUIFER_STATE_DIR", "/var/lib/aquifer/agent", parseNonEmpty),
    cgroupRoot: read.optional("AQUIFER_CGROUP_ROOT", undefined, parseNonEmpty),
    probeCgroup: read.optional("AQUIFER_PROBE_CGROUP", undefined, parseNonEmpty),
    pinDir: read.optional("AQUIFER_PIN_DIR", "/sys/fs/bpf/aquifer/v1", parseNonEmpty),
    rung: read.optional("AQUIFER_DATAPATH", "auto", parseRung),
    adminAddress: readAddress(read, "AQUIFER_ADMIN_ADDRESS", "127.0.0.1:15000"),
    statsAddress: readAddress(read, "AQUIFER_STATS_ADDRESS", "[::]:15020"),
    readinessAddress: readAddress(read, "AQUIFER_READINESS_ADDRESS", "[::]:15021"),
  };
  refuseUnsupported(env, read);
  if (config.cgroupRoot !== undefined && env.AQUIFER_PIN_DIR === undefined) {
    read.complain("AQUIFER_CGROUP_ROOT needs an AQUIFER_PIN_DIR of its own");
  }
  read.finish();
  return config;
}

const ROOT_FILE = "./var/run/secrets/istio/root-cert.pem";
const TOKEN_FILE = "./var/run/secrets/tokens/istio-token";

function readServer(
  env: Environment,
  read: EnvReader,
  prefix: "XDS" | "CA",
  defaultAddress: string,
): ServerConfig {
  const name = `${prefix}_ADDRESS`;
  return {
    address:
      env[name] === undefined
        ? parseServerAddressOf(defaultAddress)
        : read.required(name, parseServerAddress),
    root: read.optional(
      `${prefix}_ROOT_CA`,
      { kind: "file", path: ROOT_FILE } as const,
      parseRootSource,
    ),
    alternativeHostname: read.optional(`ALT_${prefix}_HOSTNAME`, undefined, parseNonEmpty),
    headers: headersFrom(env, `${prefix}_HEADER_`),
  };
}

/** CA_ADDRESS follows XDS_ADDRESS, whose own mistakes are reported once, under its own name. */
function parseServerAddressOf(text: string): URL {
  return URL.canParse(text) ? new URL(text) : new URL("https://localhost:15012");
}

function readNode(env: Environment, read: EnvReader): NodeConfig {
  const metadata: Record<string, string> = {};
  for (const [name, value] of Object.entries(env)) {
    const key = /^ISTIO_META_(.+)$/.exec(name)?.[1];
    if (key !== undefined && value !== undefined) metadata[key] = value;
    if (name.startsWith("ISTIO_METAJSON_")) read.complain(`${name}: only ISTIO_META_ is supported`);
  }
  return {
    name: read.required("NODE_NAME", parseNonEmpty),
    ip: read.optional("INSTANCE_IP", "1.1.1.1", (text) => parseIp(text)),
    podName: read.optional("POD_NAME", "", String),
    podNamespace: read.optional("POD_NAMESPACE", "", String),
    serviceAccount: read.optional("SERVICE_ACCOUNT", "", String),
    metadata,
  };
}

/** Windows and frames as HTTP/2 allows them (RFC 9113, 6.5.2). */
function readTunnel(read: EnvReader): TunnelConfig {
  const window = (text: string) => parseIntegerIn(text, 65_535, 2 ** 31 - 1);
  return {
    streamsPerSessionMax: read.optional("POOL_MAX_STREAMS_PER_CONNECTION", 100, (text) =>
      parseIntegerIn(text, 1, 65_535),
    ),
    idleSessionMs: read.optional(
      "POOL_UNUSED_RELEASE_TIMEOUT",
      5 * 60_000,
      parsePositiveDurationMs,
    ),
    streamWindowBytes: read.optional("HTTP2_STREAM_WINDOW_SIZE", 4 * 2 ** 20, window),
    connectionWindowBytes: read.optional("HTTP2_CONNECTION_WINDOW_SIZE", 16 * 2 ** 20, window),
    frameBytesMax: read.optional("HTTP2_FRAME_SIZE", 2 ** 20, (text) =>
      parseIntegerIn(text, 16_384, 2 ** 24 - 1),
    ),
  };
}

/** As ztunnel reckons it: some seconds less than Kubernetes waits before it kills. */
function readDrainLimitMs(read: EnvReader): number {
  const graceSeconds = read.optional("TERMINATION_GRACE_PERIOD_SECONDS", undefined, (text) =>
    parseIntegerIn(text, 1, 86_400),
  );
  const fromGraceMs =
    graceSeconds === undefined ? 5_000 : (graceSeconds - (graceSeconds > 10 ? 5 : 1)) * 1_000;
  return read.optional("CONNECTION_TERMINATION_DEADLINE", fromGraceMs, parseDurationMs);
}

function refuseUnsupported(env: Environment, read: EnvReader): void {
  for (const [name, { unless, reason }] of Object.entries(UNSUPPORTED)) {
    const value = env[name];
    if (value !== undefined && !unless.includes(value)) {
      read.complain(`${name}="${value}": ${reason}`);
    }
  }
}

function readAddress(read: EnvReader, name: string, fallback: string): SocketAddress {
  return read.optional(name, parseSocketAddress(fallback), parseSocketAddress);
}

function headersFrom(env: Environment, prefix: string): Readonly<Record<string, string>> {
  const headers: Record<string, string> = {};
  for (const [name, value] of Object.entries(env)) {
    if (name.startsWith(prefix) && value !== undefined) {
      headers[name.slice(prefix.length).toLowerCase()] = value;
    }
  }
  return headers;
}

function parseServerAddress(text: string): URL {
  if (text === "") throw new SyntaxError("running without a control server is not supported");
  if (!URL.canParse(text)) throw new SyntaxError('expected "https://host:port"');
  const url = new URL(text);
  if (url.protocol !== "https:") throw new SyntaxError("expected https: tokens need encryption");
  if (url.pathname !== "/" || url.username !== "" || url.search !== "" || url.hash !== "") {
    throw new SyntaxError('expected "https://host:port" and nothing else');
  }
  return url;
}

function parseRootSource(text: string): RootSource {
  if (text === "SYSTEM") return { kind: "system" };
  if (text.includes("-----BEGIN")) return { kind: "pem", text };
  return { kind: "file", path: parseNonEmpty(text) };
}

/** A token has dots and no slash, as a JSON Web Token does; everything else is a path. */
function parseToken(text: string): TokenSource {
  const isToken = !text.includes("/") && text.split(".").length === 3;
  return isToken ? { kind: "text", text } : { kind: "file", path: parseNonEmpty(text) };
}

const RUNGS_WANTED: readonly WantedRung[] = ["auto", "ebpf", "nftables"];

function parseRung(text: string): WantedRung {
  const found = RUNGS_WANTED.find((each) => each === text);
  if (found === undefined) throw new SyntaxError('expected "auto", "ebpf" or "nftables"');
  return found;
}

function parseLogFormat(text: string): LogSettings["format"] {
  if (text === "json" || text === "plain") return text;
  throw new SyntaxError('expected "json" or "plain"');
}

function parsePositiveDurationMs(text: string): number {
  const durationMs = parseDurationMs(text);
  if (durationMs === 0) throw new RangeError("expected more than nothing");
  return durationMs;
}

/** sun_path of unix(7) has room for 107 bytes and a zero. */
function parseSocketPath(text: string): string {
  if (Buffer.byteLength(text) > 107) throw new RangeError("is longer than 107 bytes");
  return parseNonEmpty(text);
}
