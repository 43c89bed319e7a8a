import { reasonOf } from "#core/errors.ts";
import { isIpv4, parseIp } from "#core/ip.ts";
import type { FieldReader } from "./field-reader.ts";
import type { IpFamily, Metadata, ServiceObject, ServicePort } from "./object.ts";

const TYPES = ["ClusterIP", "NodePort", "LoadBalancer", "ExternalName"] as const;
const POLICIES = ["SingleStack", "PreferDualStack", "RequireDualStack"] as const;
const BOTH: readonly IpFamily[] = ["IPv4", "IPv6"];

export function parseService(reader: FieldReader, metadata: Metadata): ServiceObject {
  const type = reader.oneOf("type", TYPES) ?? "ClusterIP";
  if (type === "NodePort" || type === "LoadBalancer") {
    reader.note("type", `"${type}" is the same as "ClusterIP" in the local runtime`);
  }
  const hasSelector = reader.mapping["selector"] !== undefined;
  const selector = reader.labels("selector");
  const addressing = parseAddressing(reader, type);
  const service: ServiceObject = {
    kind: "Service",
    metadata,
    selector: hasSelector && Object.keys(selector).length > 0 ? selector : undefined,
    ports: parsePorts(reader, addressing.kind !== "virtual"),
    addressing,
    families: parseFamilies(reader),
    publishNotReady: reader.boolean("publishNotReadyAddresses") ?? false,
    affinity: reader.oneOf("sessionAffinity", ["None", "ClientIP"]) === "ClientIP",
    raw: reader.mapping,
  };
  reader.accept("sessionAffinityConfig", "internalTrafficPolicy", "trafficDistribution");
  reader.accept("externalTrafficPolicy", "healthCheckNodePort", "allocateLoadBalancerNodePorts");
  reader.accept("loadBalancerClass", "loadBalancerIP", "loadBalancerSourceRanges");
  reader.note("externalIPs", "has no effect in the local runtime");
  reader.finish();
  return service;
}

function parseAddressing(
  reader: FieldReader,
  type: (typeof TYPES)[number],
): ServiceObject["addressing"] {
  const first = reader.text("clusterIP");
  const all = reader.texts("clusterIPs");
  const hostname = reader.text("externalName");
  if (type === "ExternalName") {
    if (hostname === undefined) reader.complain("externalName", "is missing");
    return { kind: "external", hostname: hostname ?? "" };
  }
  const requested = all ?? (first === undefined || first === "" ? [] : [first]);
  if (requested[0] === "None") return { kind: "headless" };
  const valid = requested.filter((text) => isAddress(reader, text));
  const families = new Set(valid.map((text) => isIpv4(parseIp(text))));
  if (families.size < valid.length) reader.complain("clusterIPs", "has one family twice");
  return { kind: "virtual", requested: valid };
}

function isAddress(reader: FieldReader, text: string): boolean {
  try {
    parseIp(text);
    return true;
  } catch (error) {
    reader.complain("clusterIP", reasonOf(error));
    return false;
  }
}

/**
 * One family where the Service does not say, as in Kubernetes: many a program listens on one only.
 *
 * @see https://kubernetes.io/docs/concepts/services-networking/dual-stack/#services
 */
function parseFamilies(reader: FieldReader): readonly IpFamily[] {
  const policy = reader.oneOf("ipFamilyPolicy", POLICIES);
  const listed = reader.texts("ipFamilies") ?? [];
  const families = BOTH.filter((family) => listed.includes(family));
  if (listed.length !== families.length) {
    reader.complain("ipFamilies", 'expected "IPv4", "IPv6" or both');
  }
  const [first = "IPv4"] = listed;
  const isDual = policy === undefined ? families.length > 1 : policy !== "SingleStack";
  return isDual ? BOTH : BOTH.filter((family) => family === first);
}

function parsePorts(reader: FieldReader, mayBeEmpty: boolean): readonly ServicePort[] {
  const ports = reader.objects("ports").map(parsePort);
  if (ports.length === 0 && !mayBeEmpty) reader.complain("ports", "is missing");
  const seen = new Set<string>();
  ports.forEach(({ name, port, protocol }, index) => {
    for (const key of [`${protocol} ${port}`, ...(name === undefined ? [] : [`name ${name}`])]) {
      if (seen.has(key)) reader.complain("ports", `port ${index} repeats "${key}"`);
      seen.add(key);
    }
    if (name === undefined && ports.length > 1) {
      reader.complain("ports", `port ${port} needs a name, since there are several`);
    }
  });
  return ports;
}

function parsePort(reader: FieldReader): ServicePort {
  const port = reader.integer("port", { min: 1, max: 65_535 });
  if (port === undefined) reader.complain("port", "expected a port");
  const target = reader.raw("targetPort");
  const isPort = typeof target === "number" && Number.isInteger(target) && target > 0;
  if (target !== undefined && !isPort && typeof target !== "string") {
    reader.complain("targetPort", "expected a port, or the name of a container's port");
  }
  const name = reader.text("name");
  const protocol = reader.oneOf("protocol", ["TCP", "UDP"]) ?? "TCP";
  const appProtocol = reader.text("appProtocol");
  reader.accept("nodePort");
  reader.finish();
  const targetPort = isPort || typeof target === "string" ? target : (port ?? 0);
  return { name, port: port ?? 0, targetPort, protocol, appProtocol };
}
