/** The headers that travel with a CONNECT and its answer: for telemetry, never for policy. */
import { randomBytes } from "node:crypto";
import { formatSocketAddress, parseSocketAddress, type SocketAddress } from "#core/ip.ts";
import type { Authority } from "#core/service/outbound.ts";
import type { Workload } from "#core/service/workload.ts";

/**
 * What a workload says of itself, in the order and with the keys that Istio's proxies use.
 *
 * @see https://www.w3.org/TR/baggage/ for the syntax
 */
export function baggageOf(workload: Workload): string {
  const pairs: readonly (readonly [string, string])[] = [
    ["k8s.cluster.name", workload.clusterId],
    ["k8s.namespace.name", workload.namespace],
    [`k8s.${workload.workloadType}.name`, workload.workloadName],
    ["service.name", workload.canonicalName],
    ["service.version", workload.canonicalRevision],
    ["cloud.region", workload.locality.region],
    ["cloud.availability_zone", workload.locality.zone],
  ];
  return pairs
    .filter(([, value]) => value !== "")
    .map(([key, value]) => `${key}=${value}`)
    .join(",");
}

/** What a peer says of its workload; "" for what it does not say. */
export interface Baggage {
  readonly clusterId: string;
  readonly namespace: string;
  readonly workloadName: string;
  readonly canonicalName: string;
  readonly canonicalRevision: string;
  readonly region: string;
  readonly zone: string;
}

/** Values that end up as labels: a peer's are cut, so that they cannot fill memory. */
const BAGGAGE_VALUE_MAX = 253;

export function parseBaggage(header: string | undefined): Baggage {
  const values = new Map<string, string>();
  for (const member of (header ?? "").split(",")) {
    const [pair = ""] = member.split(";");
    const at = pair.indexOf("=");
    if (at <= 0) continue; // not a member of a baggage: telemetry lacks it, nothing else does
    values.set(
      pair.slice(0, at).trim(),
      pair
        .slice(at + 1)
        .trim()
        .slice(0, BAGGAGE_VALUE_MAX),
    );
  }
  const kinds = ["deployment", "cronjob", "pod", "job"];
  const named = kinds.map((kind) => values.get(`k8s.${kind}.name`)).find((name) => name);
  return {
    clusterId: values.get("k8s.cluster.name") ?? "",
    namespace: values.get("k8s.namespace.name") ?? "",
    workloadName: named ?? "",
    canonicalName: values.get("service.name") ?? "",
    canonicalRevision: values.get("service.version") ?? "",
    region: values.get("cloud.region") ?? "",
    zone: values.get("cloud.availability_zone") ?? "",
  };
}

/** Who connects, and by which host name it was addressed (RFC 7239). */
export function forwardedHeader(client: SocketAddress, hostname: string | undefined): string {
  const forPart = `for="${formatSocketAddress(client)}"`;
  return hostname === undefined ? forPart : `${forPart};host=${hostname}`;
}

/** The `host` of a `forwarded` header: the only part of it that is used. */
export function forwardedHost(header: string | undefined): string | undefined {
  const host = /(?:^|[;,])\s*host="?([^";,]+)"?/i.exec(header ?? "")?.[1];
  return host?.trim();
}

/** A new trace context, not sampled (https://www.w3.org/TR/trace-context/). */
export function newTraceparent(): string {
  const bytes = randomBytes(24).toString("hex");
  return `00-${bytes.slice(0, 32)}-${bytes.slice(32)}-00`;
}

/** `10.0.0.1:80`, `[::1]:80` or `host:80`; undefined where the text is none of them. */
export function parseAuthority(text: string): Authority | undefined {
  const match = /^(.+):(\d{1,5})$/.exec(text);
  const port = Number(match?.[2]);
  const hostname = match?.[1];
  if (hostname === undefined || port < 1 || port > 65_535) return undefined;
  if (/^[\d.]+$/.test(hostname) || hostname.includes(":") || hostname.startsWith("[")) {
    return addressOf(text);
  }
  const isName = /^[A-Za-z0-9*]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?$/.test(hostname);
  return isName ? { kind: "hostname", hostname: hostname.toLowerCase(), port } : undefined;
}

function addressOf(text: string): Authority | undefined {
  try {
    return { kind: "address", address: parseSocketAddress(text) };
  } catch {
    return undefined; // the caller answers 400: what exactly is wrong with it is the peer's matter
  }
}
