import { parseIp } from "#core/ip.ts";
import type { AppProtocol, LoadBalancing, RoutingScope } from "#core/service/service.ts";
import { describeValue, type Field, type Mistake } from "./field.ts";
import type { ServiceObject, ServicePortObject, TargetPort } from "./objects.ts";
import type { Reading } from "./reading.ts";

const SPEC_FIELDS = [
  "allocateLoadBalancerNodePorts",
  "clusterIP",
  "clusterIPs",
  "externalIPs",
  "externalName",
  "externalTrafficPolicy",
  "healthCheckNodePort",
  "internalTrafficPolicy",
  "ipFamilies",
  "ipFamilyPolicy",
  "loadBalancerClass",
  "loadBalancerIP",
  "loadBalancerSourceRanges",
  "ports",
  "publishNotReadyAddresses",
  "selector",
  "sessionAffinity",
  "sessionAffinityConfig",
  "trafficDistribution",
  "type",
] as const;

const PORT_FIELDS = ["appProtocol", "name", "nodePort", "port", "protocol", "targetPort"] as const;

/** Kubernetes' default, and its bounds. */
const AFFINITY_SECONDS_DEFAULT = 10_800;
const AFFINITY_SECONDS_MAX = 86_400;

/** @see https://kubernetes.io/docs/reference/kubernetes-api/service-resources/service-v1/ */
export function interpretService(reading: Reading): ServiceObject {
  const { root, metadata, remarks } = reading;
  // A field that came after this was written is more likely than a wrong one, and must not take
  // the service down: it is told, and has no effect.
  root.only(["apiVersion", "kind", "metadata", "spec", "status"], remarks);
  const spec = root.get("spec").required().only(SPEC_FIELDS, remarks);
  const type = readType(spec);
  const virtualIps = type === "clusterIp" ? readVirtualIps(spec, root.get("status")) : [];
  if (type === "clusterIp" && virtualIps.length === 0) {
    const reason = 'the service has no address: give it one, or "None" for a headless service';
    remarks.push({ path: ["spec", "clusterIP"], reason });
  }
  return {
    kind: "Service",
    ...metadata,
    type,
    selector: type === "externalName" ? new Map() : spec.get("selector").strings(),
    virtualIps,
    ports: readPorts(spec.get("ports"), remarks),
    ipFamilies: readIpFamilies(spec.get("ipFamilies")),
    loadBalancing: readLoadBalancing(spec, reading),
    visibility: readVisibility(reading),
    sessionAffinityMs: readSessionAffinityMs(spec),
  };
}

function readType(spec: Field): ServiceObject["type"] {
  const types = ["ClusterIP", "NodePort", "LoadBalancer", "ExternalName"] as const;
  const type = spec.get("type").oneOf(types) ?? "ClusterIP";
  if (type === "ExternalName") return "externalName";
  return spec.get("clusterIP").value === "None" ? "headless" : "clusterIp";
}

/** A load balancer's addresses are reached from inside as well, and then without the balancer. */
function readVirtualIps(spec: Field, status: Field): ServiceObject["virtualIps"] {
  const listed = spec.get("clusterIPs").items();
  const first = spec.get("clusterIP");
  const isSame = listed.length === 0 || !first.isPresent || listed[0]?.value === first.value;
  if (!isSame)
    first.complain(`differs from the first of clusterIPs, ${describeValue(listed[0]?.value)}`);
  const ingress = status
    .get("loadBalancer")
    .get("ingress")
    .items()
    .map((item) => item.get("ip"));
  const addresses = [...(listed.length > 0 ? listed : [first]), ...ingress]
    .filter(({ value }) => value !== "")
    .map((field) => field.parsed(parseIp))
    .filter((address) => address !== undefined);
  return [...new Set(addresses)];
}

function readPorts(ports: Field, remarks: Mistake[]): readonly ServicePortObject[] {
  const items = ports.items();
  const read: ServicePortObject[] = [];
  for (const item of items) {
    item.only(PORT_FIELDS, remarks);
    const name = item.get("name").string() ?? "";
    const protocol = item.get("protocol").oneOf(["TCP", "UDP", "SCTP"]) ?? "TCP";
    const port = item.get("port").required().integer(1, 65_535);
    const target = readTargetPort(item.get("targetPort"), port ?? 0);
    if (items.length > 1 && name === "") {
      item.get("name").complain("is missing, ports need names where there are several");
    }
    // The mesh carries TCP; other traffic goes as it would without it.
    if (port === undefined || target === undefined || protocol !== "TCP") continue;
    if (read.some((other) => other.port === port))
      item.get("port").complain(`${port} stands twice`);
    if (read.some((other) => other.name === name))
      item.get("name").complain(`"${name}" stands twice`);
    const appProtocol = appProtocolOf(item.get("appProtocol").string(), name);
    read.push({ name, port, target, appProtocol });
  }
  return read;
}

function readTargetPort(field: Field, port: number): TargetPort | undefined {
  // 0 and "" are how Go programs write "not given".
  if (!field.isPresent || field.value === 0 || field.value === "") return { kind: "number", port };
  if (typeof field.value !== "string") {
    const number = field.integer(1, 65_535);
    return number === undefined ? undefined : { kind: "number", port: number };
  }
  // A name has at least one letter (RFC 6335, 5.1): "8080" is a number in the wrong type.
  if (/^[a-z0-9-]{1,15}$/.test(field.value) && /[a-z]/.test(field.value)) {
    return { kind: "name", name: field.value };
  }
  return field.complain(`expected a number or the name of a port, got "${field.value}"`);
}

/** A map: names of ports are anybody's, and no object may lend them its own. */
const APP_PROTOCOLS: ReadonlyMap<string, AppProtocol> = new Map([
  ["kubernetes.io/h2c", "http2"],
  ["kubernetes.io/ws", "http11"],
  ["kubernetes.io/wss", "tls"],
  ["grpc", "grpc"],
  ["grpc-web", "grpc"],
  ["http", "http11"],
  ["http2", "http2"],
  ["https", "tls"],
  ["tcp", "tcp"],
  ["tls", "tls"],
]);

/** The field wins; without it the name's part before the first "-" says it, as Istio has it. */
function appProtocolOf(declared: string | undefined, name: string): AppProtocol {
  const word = (declared ?? name).toLowerCase();
  const prefix = word.startsWith("grpc-web") ? "grpc-web" : (word.split("-")[0] ?? "");
  return APP_PROTOCOLS.get(word) ?? APP_PROTOCOLS.get(prefix) ?? "unknown";
}

function readIpFamilies(field: Field): ServiceObject["ipFamilies"] {
  const families = field.items().map((item) => item.oneOf(["IPv4", "IPv6"]));
  if (families.includes("IPv4") && families.includes("IPv6")) return "dual";
  if (families.includes("IPv4")) return "ipv4Only";
  return families.includes("IPv6") ? "ipv6Only" : "automatic";
}

/** Network first: an endpoint there is better than any near one that a gateway stands before. */
const CLOSE: readonly RoutingScope[] = ["network", "region", "zone"];
const SAME_NODE: readonly RoutingScope[] = [...CLOSE, "subzone", "node"];

/** @see https://istio.io/latest/docs/reference/config/annotations/ for the annotation */
function readLoadBalancing(spec: Field, { metadata, remarks }: Reading): LoadBalancing | undefined {
  const publishes = spec.get("publishNotReadyAddresses").boolean() ?? false;
  const healthPolicy = publishes ? "allowAll" : "onlyHealthy";
  const internal = spec.get("internalTrafficPolicy").oneOf(["Cluster", "Local"]);
  const declared = spec.get("trafficDistribution").string();
  const annotation = "networking.istio.io/traffic-distribution";
  const wanted = declared ?? metadata.annotations.get(annotation);
  const preference = wanted === undefined ? [] : preferenceOf(wanted);
  if (preference === undefined) {
    const path =
      declared === undefined
        ? ["metadata", "annotations", annotation]
        : ["spec", "trafficDistribution"];
    const reason = `${JSON.stringify(wanted)} is not known, no endpoint is preferred`;
    remarks.push({ path, reason });
  }
  if (internal === "Local") return { routingPreference: ["node"], mode: "strict", healthPolicy };
  if (preference && preference.length > 0) {
    return { routingPreference: preference, mode: "failover", healthPolicy };
  }
  return publishes ? { routingPreference: [], mode: "unspecified", healthPolicy } : undefined;
}

function preferenceOf(wanted: string): readonly RoutingScope[] | undefined {
  switch (wanted.toLowerCase()) {
    case "preferclose":
    case "prefersamezone":
      return CLOSE;
    case "prefersamenode":
      return SAME_NODE;
    case "any":
      return [];
    default:
      return undefined;
  }
}

function readVisibility({ metadata, remarks }: Reading): ServiceObject["visibility"] {
  const annotation = "networking.istio.io/exportTo";
  const exportTo = metadata.annotations.get(annotation);
  if (exportTo === undefined || exportTo === "*") return "public";
  if (exportTo === ".") return "namespace";
  const reason = `${JSON.stringify(exportTo)} is not served, "*" and "." are; the service is public`;
  remarks.push({ path: ["metadata", "annotations", annotation], reason });
  return "public";
}

function readSessionAffinityMs(spec: Field): number | undefined {
  const affinity = spec.get("sessionAffinity").oneOf(["None", "ClientIP"]);
  const clientIp = spec.get("sessionAffinityConfig").get("clientIP");
  const seconds = clientIp.get("timeoutSeconds").integer(1, AFFINITY_SECONDS_MAX);
  return affinity === "ClientIP" ? (seconds ?? AFFINITY_SECONDS_DEFAULT) * 1_000 : undefined;
}
