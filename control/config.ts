import { EnvReader, parseDurationMs, parseNonEmpty } from "#core/env.ts";
import { parseIp, parseSocketAddress, type SocketAddress } from "#core/ip.ts";
import type { SameNode } from "#core/service/workload.ts";
import { LEVELS, type LogSettings } from "./log.ts";

/** Everything control is told from outside. Read once, in main.ts, and passed down from there. */
export interface ControlConfig {
  /** Folders of object files, each watched with all folders in it. */
  readonly sourceDirectories: readonly string[];
  /** Holds the CA's files, the key of node tokens and what is remembered of objects. */
  readonly stateDirectory: string;
  /** Discovery and certificates. */
  readonly discoveryAddress: SocketAddress;
  /** Readiness, problems and metrics. */
  readonly adminAddress: SocketAddress;
  /** Names and addresses that nodes know this server by, besides those it always has. */
  readonly serverNames: readonly string[];
  readonly trustDomain: string;
  readonly clusterId: string;
  /** How pods of one node talk where neither they nor their namespaces say otherwise. */
  readonly sameNode: SameNode;
  /** A policy in this namespace holds in all of them. */
  readonly rootNamespace: string;
  /** Undefined where the label of the root namespace says it, or nobody does. */
  readonly network: string | undefined;
  readonly log: LogSettings;
}

export interface TokenConfig {
  readonly stateDirectory: string;
  readonly node: string;
  readonly ttlMs: number;
}

type Environment = Readonly<Record<string, string | undefined>>;

/** A node is asked to prove itself anew each day; longer tokens are a choice, up to a year. */
const TOKEN_TTL_MS = 24 * 3_600_000;
const TOKEN_TTL_MS_MAX = 365 * TOKEN_TTL_MS;

/** @throws MeshError `SETTINGS_INVALID`, which lists every mistake */
export function readConfig(env: Environment): ControlConfig {
  const read = new EnvReader(env);
  read.optional("AQUIFER_SOURCE", "directory", parseSource);
  const config: ControlConfig = {
    sourceDirectories: read.required("AQUIFER_SOURCE_DIRECTORIES", parseDirectories),
    stateDirectory: read.required("AQUIFER_STATE_DIR", parseNonEmpty),
    discoveryAddress: readAddress(read, "AQUIFER_DISCOVERY_ADDRESS", 15_012),
    adminAddress: readAddress(read, "AQUIFER_ADMIN_ADDRESS", 15_014),
    serverNames: read.optional("AQUIFER_SERVER_NAMES", [], parseServerNames),
    trustDomain: read.optional("TRUST_DOMAIN", "cluster.local", parseTrustDomain),
    clusterId: read.optional("CLUSTER_ID", "Kubernetes", parseClusterId),
    rootNamespace: read.optional("ROOT_NAMESPACE", "istio-system", parseNamespace),
    sameNode: read.optional("AQUIFER_SAME_NODE", "encrypted", parseSameNode),
    network: read.optional("NETWORK", undefined, parseNetwork),
    log: {
      format: read.optional("LOG_FORMAT", "plain", parseLogFormat),
      level: read.optional("AQUIFER_LOG_LEVEL", "info", parseLogLevel),
    },
  };
  const { discoveryAddress, adminAddress } = config;
  if (discoveryAddress && adminAddress && isClash(discoveryAddress, adminAddress)) {
    read.complain("AQUIFER_DISCOVERY_ADDRESS and AQUIFER_ADMIN_ADDRESS are the same");
  }
  read.finish();
  return config;
}

/** @throws MeshError `SETTINGS_INVALID`, which lists every mistake */
export function readTokenConfig(
  env: Environment,
  options: { readonly node?: string | undefined; readonly ttl?: string | undefined },
): TokenConfig {
  const read = new EnvReader({ ...env, "--node": options.node, "--ttl": options.ttl });
  const config: TokenConfig = {
    stateDirectory: read.required("AQUIFER_STATE_DIR", parseNonEmpty),
    node: read.required("--node", parseNodeName),
    ttlMs: read.optional("--ttl", TOKEN_TTL_MS, parseTokenTtlMs),
  };
  read.finish();
  return config;
}

function readAddress(read: EnvReader, name: string, port: number): SocketAddress {
  return read.optional(name, { ip: parseIp("::"), port }, parseSocketAddress);
}

/** Port 0 is another one each time. */
function isClash(a: SocketAddress, b: SocketAddress): boolean {
  return a.port === b.port && a.ip === b.ip && a.port !== 0;
}

function parseSource(text: string): "directory" {
  if (text === "directory") return text;
  const reason = text === "kubernetes" ? "not available yet" : "not known";
  throw new SyntaxError(`${reason}, use "directory"`);
}

function parseDirectories(text: string): readonly string[] {
  const directories = text.split(":");
  if (directories.includes("")) throw new SyntaxError("a folder's name is empty");
  return [...new Set(directories)];
}

function parseServerNames(text: string): readonly string[] {
  return text.split(",").map((name) => {
    const trimmed = name.trim();
    if (!/^[A-Za-z0-9*]([A-Za-z0-9.:_-]*[A-Za-z0-9])?$/.test(trimmed) && trimmed !== "::") {
      throw new SyntaxError(`"${trimmed}" is no name and no address`);
    }
    return trimmed;
  });
}

function parseTrustDomain(text: string): string {
  if (/^[a-z0-9._-]{1,255}$/.test(text)) return text;
  throw new SyntaxError('expected lower case letters, digits, ".", "_" and "-"');
}

function parseNamespace(text: string): string {
  if (/^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$/.test(text)) return text;
  throw new SyntaxError("expected the name of a namespace");
}

/** Stands in front of "//" in the keys of workloads, and in a header of every stream. */
function parseClusterId(text: string): string {
  if (/^[A-Za-z0-9._-]+$/.test(text)) return text;
  throw new SyntaxError('expected letters, digits, ".", "_" and "-"');
}

/** The value of a label (`topology.istio.io/network`), and in front of "/" in names. */
function parseNetwork(text: string): string {
  if (/^([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?$/.test(text)) return text;
  throw new SyntaxError('expected letters, digits, ".", "_" and "-"');
}

function parseSameNode(text: string): SameNode {
  if (text === "direct" || text === "encrypted") return text;
  throw new SyntaxError('expected "direct" or "encrypted"');
}

function parseNodeName(text: string): string {
  if (text.length <= 253 && /^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$/.test(text)) return text;
  throw new SyntaxError("expected the name of a node");
}

function parseTokenTtlMs(text: string): number {
  const ttlMs = parseDurationMs(text);
  if (ttlMs >= 1_000 && ttlMs <= TOKEN_TTL_MS_MAX) return ttlMs;
  throw new RangeError("expected 1s to 8760h");
}

function parseLogFormat(text: string): LogSettings["format"] {
  if (text === "json" || text === "plain") return text;
  throw new SyntaxError('expected "json" or "plain"');
}

function parseLogLevel(text: string): LogSettings["level"] {
  const level = LEVELS.find((known) => known === text);
  if (level !== undefined) return level;
  throw new SyntaxError(`expected one of ${LEVELS.join(", ")}`);
}
