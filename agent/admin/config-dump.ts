/**
 * The agent's state as JSON, in the shape of ztunnel's `/config_dump`, which `istioctl
 * ztunnel-config` reads. No private key is in it.
 */
import { formatSocketAddress, type IpBlock } from "#core/ip.ts";
import type { Match, Policy, StringMatch } from "#core/policy/policy.ts";
import type { MeshIndex } from "#core/service/mesh-index.ts";
import type { Service } from "#core/service/service.ts";
import type { GatewayAddress, Workload } from "#core/service/workload.ts";
import type { CertificateStatus } from "../identity/certificate-store.ts";
import type { ConnectionFacts } from "../proxy/connection-log.ts";
import type { PodStatus } from "../workload/enrollment-loop.ts";

export interface DumpSources {
  readonly index: MeshIndex;
  readonly certificates: readonly CertificateStatus[];
  readonly pods: readonly PodStatus[];
  readonly connections: Iterable<ConnectionFacts>;
  /** Settings without secrets. */
  readonly config: unknown;
  readonly version: string;
}

export function configDump(sources: DumpSources) {
  const { index, certificates, pods, connections, config, version } = sources;
  const live = [...connections];
  return {
    workloads: [...index.workloads.values()].map(dumpWorkload),
    services: [...index.services.values()].map((service) => dumpService(index, service)),
    policies: [...index.policies.values()].map(dumpPolicy),
    stagedServices: dumpStagedServices(index),
    staticConfig: {},
    version: { version, buildVersion: version, component: "aquifer-agent" },
    config,
    certificates: certificates.map(dumpCertificate),
    workloadState: Object.fromEntries(
      pods.map((status) => [status.pod.uid, dumpPod(status, live)]),
    ),
  };
}

function dumpWorkload(workload: Workload) {
  return {
    uid: workload.uid,
    workloadIps: workload.addresses,
    ...(workload.waypoint && { waypoint: dumpGateway(workload.waypoint) }),
    ...(workload.networkGateway && { networkGateway: dumpGateway(workload.networkGateway) }),
    protocol: workload.tunnelProtocol === "hbone" ? "HBONE" : "TCP",
    name: workload.name,
    namespace: workload.namespace,
    trustDomain: workload.trustDomain,
    serviceAccount: workload.serviceAccount,
    workloadName: workload.workloadName,
    workloadType: workload.workloadType,
    canonicalName: workload.canonicalName,
    canonicalRevision: workload.canonicalRevision,
    network: workload.network,
    node: workload.node,
    nativeTunnel: workload.nativeTunnel,
    hostname: workload.hostname,
    status: workload.healthy ? "Healthy" : "Unhealthy",
    clusterId: workload.clusterId,
    locality: workload.locality,
    capacity: workload.capacity,
    services: [...workload.services.keys()],
    authorizationPolicies: workload.policies,
    ...(workload.applicationTunnel && {
      applicationTunnel: {
        protocol: workload.applicationTunnel.protocol.toUpperCase(),
        port: workload.applicationTunnel.port,
      },
    }),
  };
}

function dumpService(index: MeshIndex, service: Service) {
  const endpoints = index.endpointsOf(service.key).map((workload) => [
    workload.uid,
    {
      workloadUid: workload.uid,
      service: service.key,
      port: Object.fromEntries(workload.services.get(service.key) ?? []),
      status: workload.healthy ? "Healthy" : "Unhealthy",
    },
  ]);
  const { loadBalancing } = service;
  return {
    name: service.name,
    namespace: service.namespace,
    hostname: service.hostname,
    vips: service.addresses.map(({ network, block }) => `${network}/${formatBlock(block)}`),
    ports: Object.fromEntries(service.ports.map(({ port, targetPort }) => [port, targetPort])),
    endpoints: Object.fromEntries(endpoints),
    subjectAltNames: service.subjectAltNames,
    ...(service.waypoint && { waypoint: dumpGateway(service.waypoint) }),
    ...(loadBalancing && {
      loadBalancer: {
        mode: capitalise(loadBalancing.mode),
        routingPreferences: loadBalancing.routingPreference.map(capitalise),
        healthPolicy: capitalise(loadBalancing.healthPolicy),
      },
    }),
    ipFamilies: capitalise(service.ipFamilies),
  };
}

function dumpPolicy(policy: Policy) {
  const scopes = { global: "Global", namespace: "Namespace", workload: "WorkloadSelector" };
  return {
    name: policy.name,
    namespace: policy.namespace,
    scope: scopes[policy.scope],
    action: policy.action === "allow" ? "Allow" : "Deny",
    dryRun: policy.dryRun,
    rules: policy.rules.map((rule) => rule.map((clause) => clause.map(dumpMatch))),
  };
}

function dumpMatch(match: Match) {
  const fields = Object.entries({
    namespaces: match.namespaces.map(dumpText),
    notNamespaces: match.notNamespaces.map(dumpText),
    principals: match.principals.map(dumpText),
    notPrincipals: match.notPrincipals.map(dumpText),
    serviceAccounts: match.serviceAccounts,
    notServiceAccounts: match.notServiceAccounts,
    sourceIps: match.sourceIps.map(formatBlock),
    notSourceIps: match.notSourceIps.map(formatBlock),
    destinationIps: match.destinationIps.map(formatBlock),
    notDestinationIps: match.notDestinationIps.map(formatBlock),
    destinationPorts: match.destinationPorts,
    notDestinationPorts: match.notDestinationPorts,
  });
  return Object.fromEntries(fields.filter(([, values]) => values.length > 0));
}

function dumpText(text: StringMatch) {
  switch (text.kind) {
    case "exact":
      return { Exact: text.value };
    case "prefix":
      return { Prefix: text.value };
    case "suffix":
      return { Suffix: text.value };
    case "presence":
      return { Presence: {} };
  }
}

/** Services that a workload says it is an endpoint of, and that nobody has sent. */
function dumpStagedServices(index: MeshIndex) {
  const staged: Record<string, Record<string, unknown>> = {};
  for (const workload of index.workloads.values()) {
    for (const [key, ports] of workload.services) {
      if (index.services.has(key)) continue;
      staged[key] ??= {};
      staged[key][workload.uid] = {
        workloadUid: workload.uid,
        service: key,
        port: Object.fromEntries(ports),
      };
    }
  }
  return staged;
}

function dumpCertificate({ identity, state, issued, error }: CertificateStatus) {
  return {
    identity,
    state: state === "Unavailable" && error !== undefined ? `Unavailable: ${error}` : state,
    certChain: (issued?.chainPem ?? []).map((pem, index) => ({
      pem: Buffer.from(pem).toString("base64"),
      serialNumber: index === 0 ? (issued?.serialNumber ?? "") : "",
      validFrom: index === 0 && issued ? isoSeconds(issued.validity.notBeforeMs) : "",
      expirationTime: index === 0 && issued ? isoSeconds(issued.validity.notAfterMs) : "",
    })),
    rootCerts: (issued?.rootsPem ?? []).map((pem) => ({
      pem: Buffer.from(pem).toString("base64"),
    })),
  };
}

function dumpPod({ pod, state, reason }: PodStatus, connections: readonly ConnectionFacts[]) {
  const own = connections.filter((facts) => facts.pod === pod.uid);
  const of = (reporter: ConnectionFacts["reporter"]) =>
    own.filter((facts) => facts.reporter === reporter).map(dumpConnection);
  const { name, namespace, serviceAccount } = pod;
  return {
    state: state === "up" ? "Up" : "Pending",
    ...(reason !== undefined && { reason }),
    connections: { inbound: of("destination"), outbound: of("source") },
    info: { name, namespace, serviceAccount },
  };
}

function dumpConnection({ client, dialled, server, security }: ConnectionFacts) {
  return {
    src: formatSocketAddress(client),
    originalDst: dialled ? formatSocketAddress(dialled) : "",
    actualDst: server ? formatSocketAddress(server) : "",
    protocol: security === "mutual_tls" ? "HBONE" : "TCP",
  };
}

function dumpGateway(gateway: GatewayAddress) {
  const destination =
    gateway.kind === "hostname" ? gateway.service : `${gateway.network}/${gateway.ip}`;
  return { destination, hboneMtlsPort: gateway.hbonePort };
}

function formatBlock({ address, length }: IpBlock): string {
  return length === (address.includes(":") ? 128 : 32) ? address : `${address}/${length}`;
}

/** `onlyHealthy` as `OnlyHealthy`. */
function capitalise(text: string): string {
  return text.slice(0, 1).toUpperCase() + text.slice(1);
}

function isoSeconds(timeMs: number): string {
  return new Date(timeMs).toISOString().replace(/\.\d{3}Z$/, "Z");
}
