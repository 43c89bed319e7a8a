import { parseIp } from "#core/ip.ts";
import type { Field } from "./field.ts";
import type { Labels, PodObject } from "./objects.ts";
import type { Reading } from "./reading.ts";

/**
 * Only what the mesh needs is read: the rest of a pod is for those who run it.
 *
 * @see https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1/
 */
export function interpretPod({ root, metadata }: Reading): PodObject {
  const spec = root.get("spec");
  const status = root.get("status");
  const phase = status.get("phase").oneOf(["Pending", "Running", "Succeeded", "Failed", "Unknown"]);
  const isDeleting = root.get("metadata").get("deletionTimestamp").string() !== undefined;
  const isTerminal = phase === "Succeeded" || phase === "Failed";
  return {
    kind: "Pod",
    ...metadata,
    serviceAccount: readServiceAccount(spec),
    node: spec.get("nodeName").string() ?? "",
    hostNetwork: spec.get("hostNetwork").boolean() ?? false,
    addresses: readAddresses(status),
    isTerminal,
    isReady: isReady(status) && !isDeleting && !isTerminal,
    namedPorts: readNamedPorts(spec),
    workloadName: readWorkloadName(root.get("metadata"), metadata.name, metadata.labels),
  };
}

function readServiceAccount(spec: Field): string {
  // `serviceAccount` is the older name of the same field.
  const name = spec.get("serviceAccountName").string() ?? spec.get("serviceAccount").string();
  if (name === undefined || name === "") return "default";
  if (!/^[A-Za-z0-9._-]+$/.test(name)) {
    spec.get("serviceAccountName").complain(`${JSON.stringify(name)} cannot stand in an identity`);
  }
  return name;
}

function readAddresses(status: Field): PodObject["addresses"] {
  const listed = status
    .get("podIPs")
    .items()
    .map((item) => item.get("ip").required());
  const only = status.get("podIP");
  const fields = listed.length > 0 ? listed : [only];
  const addresses = fields
    .filter(({ value }) => value !== "")
    .map((field) => field.parsed(parseIp))
    .filter((address) => address !== undefined);
  return [...new Set(addresses)];
}

function isReady(status: Field): boolean {
  return status
    .get("conditions")
    .items()
    .some((item) => item.get("type").value === "Ready" && item.get("status").value === "True");
}

/** Sidecar containers, which are init containers that stay, offer their ports as well. */
function readNamedPorts(spec: Field): ReadonlyMap<string, number> {
  const staying = spec
    .get("initContainers")
    .items()
    .filter((container) => container.get("restartPolicy").value === "Always");
  const ports = new Map<string, number>();
  for (const container of [...spec.get("containers").items(), ...staying]) {
    for (const port of container.get("ports").items()) {
      const name = port.get("name").string();
      const number = port.get("containerPort").required().integer(1, 65_535);
      const protocol = port.get("protocol").string() ?? "TCP";
      if (name === undefined || number === undefined || protocol !== "TCP") continue;
      if (!ports.has(name)) ports.set(name, number);
    }
  }
  return ports;
}

/**
 * The name that a person knows a pod's program by. A ReplicaSet is named after its Deployment and
 * the hash of the pod's template, a Job after its CronJob and a moment.
 */
function readWorkloadName(metadata: Field, podName: string, labels: Labels): string {
  const owner = metadata
    .get("ownerReferences")
    .items()
    .find((reference) => reference.get("controller").value === true);
  const name = owner?.get("name").string();
  // A static pod belongs to its node, which says nothing about what runs in it.
  if (owner === undefined || name === undefined || owner.get("kind").value === "Node") {
    return podName;
  }
  switch (owner.get("kind").value) {
    case "ReplicaSet":
      return withoutHash(name, labels.get("pod-template-hash"));
    case "Job":
      return /^(.+)-\d{8,10}$/.exec(name)?.[1] ?? name;
    default:
      return name;
  }
}

function withoutHash(name: string, hash: string | undefined): string {
  const suffix = `-${hash}`;
  return hash && name.endsWith(suffix) ? name.slice(0, -suffix.length) : name;
}
