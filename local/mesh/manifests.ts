/** The objects that the control server is given, each with the place the user wrote it at. */
import { stringify } from "yaml";
import type { IpAddress } from "#core/ip.ts";
import type { LocalProblem as Problem } from "#core/local-api.ts";
import { nodeAddress } from "../addresses.ts";
import type { ControlProblem } from "../fabric/messages.ts";
import { type Document, type FieldPath, formatPath, parsePath } from "../object/document.ts";
import { nameOf, nameOfObject, type ServiceObject } from "../object/object.ts";
import type { Objects, Stored } from "../object/store.ts";
import type { Manifest } from "../plan/endpoints.ts";
import { hashOf } from "../plan/hash.ts";
import type { PodLoop } from "../pod/pod-loop.ts";

/** One file for the control server. */
export interface ObjectFile {
  readonly text: string;
  readonly source: /** Word for word as the user wrote it. */
    | { readonly kind: "verbatim"; readonly document: Document; readonly object: string }
    /** Made from a part of what the user wrote. */
    | {
        readonly kind: "made";
        readonly document: Document;
        /** `nameOf()` what the user wrote: a Deployment, where this is one of its pods. */
        readonly object: string;
        readonly prefix: FieldPath;
      }
    /** The user wrote nothing of it. */
    | { readonly kind: "own" };
}

export type ObjectFiles = ReadonlyMap<string, ObjectFile>;

export const REDIRECTION = "ambient.istio.io/redirection";

/** @see https://kubernetes.io/docs/concepts/workloads/controllers/deployment/#pod-template-hash-label */
export function podManifest(pod: PodLoop): Manifest {
  const { uid, addresses, nodeNumber } = pod.options;
  const { namespace, name, node, owner, spec } = pod.options.pod;
  const redirected = pod.mesh.phase === "enrolled" ? { [REDIRECTION]: "enabled" } : {};
  const [, deployment = ""] = owner?.deployment.split("/") ?? [];
  return {
    apiVersion: "v1",
    kind: "Pod",
    metadata: {
      namespace,
      name,
      uid,
      creationTimestamp: pod.createdAt.toISOString(),
      ...(pod.terminating ? { deletionTimestamp: pod.createdAt.toISOString() } : {}),
      labels: pod.labels,
      annotations: { ...pod.annotations, ...redirected },
      ...(owner === undefined
        ? {}
        : {
            ownerReferences: [
              {
                apiVersion: "apps/v1",
                kind: "ReplicaSet",
                name: `${deployment}-${owner.templateHash}`,
                controller: true,
              },
            ],
          }),
    },
    spec: { ...spec.raw, nodeName: node, serviceAccountName: spec.serviceAccount },
    status: {
      phase: pod.phase,
      hostIP: nodeAddress(nodeNumber).ipv4,
      podIP: addresses.ipv4,
      podIPs: [{ ip: addresses.ipv4 }, { ip: addresses.ipv6 }],
      conditions: [{ type: "Ready", status: pod.ready ? "True" : "False" }],
    },
  };
}

export function serviceManifest(service: ServiceObject, addresses: readonly IpAddress[]): Manifest {
  const { namespace, name, labels, annotations } = service.metadata;
  const [clusterIP] = addresses;
  const assigned = clusterIP === undefined ? {} : { clusterIP, clusterIPs: addresses };
  return {
    apiVersion: "v1",
    kind: "Service",
    metadata: { namespace, name, labels, annotations },
    spec: { ...service.raw, ...assigned, ipFamilies: service.families },
  };
}

export interface Cluster {
  readonly objects: Objects;
  readonly namespaces: Iterable<string>;
  readonly services: readonly {
    readonly service: ServiceObject;
    readonly addresses: readonly IpAddress[];
  }[];
  readonly pods: readonly PodLoop[];
  readonly slices: readonly Manifest[];
}

/** By file name. */
export function objectFiles(cluster: Cluster): ObjectFiles {
  const files = new Map<string, ObjectFile>();
  const own = (manifest: Manifest) => {
    files.set(fileOf(manifest), { text: stringify(manifest), source: { kind: "own" } });
  };
  for (const name of cluster.namespaces) {
    own({ apiVersion: "v1", kind: "Namespace", metadata: { name } });
    own({
      apiVersion: "v1",
      kind: "ServiceAccount",
      metadata: { namespace: name, name: "default" },
    });
  }
  for (const { object, document } of cluster.objects.values()) {
    const { namespace, name } = object.metadata;
    switch (object.kind) {
      case "Namespace":
      case "ServiceAccount":
      case "Other": {
        const kind = object.kind === "Other" ? object.objectKind : object.kind;
        const file = fileOf({ kind, metadata: { namespace, name } });
        const source = { kind: "verbatim", document, object: nameOf(object) } as const;
        files.set(file, { text: document.text, source });
        break;
      }
      case "Deployment":
      case "Pod":
      case "Service":
        break; // what becomes of them follows
    }
  }
  for (const { service, addresses } of cluster.services) {
    const manifest = serviceManifest(service, addresses);
    files.set(fileOf(manifest), made(manifest, cluster.objects.get(nameOf(service)), []));
  }
  for (const pod of cluster.pods) {
    const { namespace, name, owner } = pod.options.pod;
    const source = cluster.objects.get(owner?.deployment ?? nameOfObject("Pod", namespace, name));
    const prefix = owner === undefined ? [] : ["spec", "template"];
    const manifest = podManifest(pod);
    files.set(fileOf(manifest), made(manifest, source, prefix));
  }
  for (const slice of cluster.slices) own(slice);
  return files;
}

function made(manifest: Manifest, from: Stored | undefined, prefix: FieldPath): ObjectFile {
  const text = stringify(manifest);
  if (from === undefined) return { text, source: { kind: "own" } };
  const { document, object } = from;
  return { text, source: { kind: "made", document, object: nameOf(object), prefix } };
}

/** The longest name of a file is 255 bytes, and one is written beside it with a longer name. */
const FILE_NAME_LENGTH_MAX = 200;

/** Never with a dot first: control takes such files for an editor's. */
function fileOf({ kind, metadata }: Pick<Manifest, "kind" | "metadata">): string {
  const { namespace = "", name } = metadata;
  const whole = [namespace, kind, name].filter((part) => part !== "").join(".");
  if (whole.length <= FILE_NAME_LENGTH_MAX) return `${whole}.yaml`;
  return `${whole.slice(0, FILE_NAME_LENGTH_MAX)}.${hashOf(whole)}.yaml`;
}

/** Says what the control server found wrong, in terms of the user's own files. */
export function translate(
  { file, line, object, field, reason, lastGood }: ControlProblem,
  files: ObjectFiles,
): Problem {
  const severity = "problem";
  const source = files.get(file.slice(file.lastIndexOf("/") + 1))?.source;
  switch (source?.kind) {
    case undefined:
    case "own":
      return { file, line, object, field, reason, severity, lastGood };
    case "verbatim": {
      const { document } = source;
      const usersLine = document.line + Math.max(0, line - 1);
      return {
        file: document.file,
        line: usersLine,
        object: source.object,
        field,
        reason,
        severity,
        lastGood,
      };
    }
    case "made": {
      const { document, prefix } = source;
      const path = [...prefix, ...parsePath(field)];
      return {
        file: document.file,
        line: document.lineOf(path),
        object: source.object,
        field: formatPath(path),
        reason,
        severity,
        lastGood,
      };
    }
  }
}
