import type { LocalProblem as Problem } from "#core/local-api.ts";
import { type Document, formatPath } from "./document.ts";
import { FieldReader } from "./field-reader.ts";
import {
  type DeploymentObject,
  type LocalObject,
  type Metadata,
  nameOfObject,
  type Quantity,
  type Strategy,
} from "./object.ts";
import { parsePodSpec } from "./parse-pod.ts";
import { parseService } from "./parse-service.ts";

export interface Parsed {
  /** undefined where there are problems of severity "problem". */
  readonly object: LocalObject | undefined;
  /** The object's name even where it is wrong otherwise; undefined where it does not say. */
  readonly name: string | undefined;
  readonly problems: readonly Problem[];
}

/** Kinds of the API groups that the runtime reads, with the group version it knows. */
const KNOWN_VERSIONS: Readonly<Record<string, string>> = {
  Namespace: "v1",
  ServiceAccount: "v1",
  Pod: "v1",
  Service: "v1",
  Deployment: "apps/v1",
};

const CLUSTER_KINDS = new Set(["Namespace", "GatewayClass", "ClusterRole", "ClusterRoleBinding"]);

/** What would run pods, were it a Kubernetes: nobody behind the runtime would see to it. */
const UNSUPPORTED_KINDS = new Set([
  "StatefulSet",
  "DaemonSet",
  "ReplicaSet",
  "ReplicationController",
  "Job",
  "CronJob",
  "HorizontalPodAutoscaler",
]);

/** Names and kinds become names of files: nothing in them may lead to another folder. */
const KIND = /^[A-Z][A-Za-z0-9]{0,62}$/;
const DNS_LABEL = /^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$/;
const DNS_SUBDOMAIN =
  /^(?=.{1,253}$)[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$/;

/** Reads one object. What is wrong with it comes back with the line to change. */
export function parseObject(document: Document): Parsed {
  const problems: Problem[] = [];
  let name: string | undefined;
  const reader = new FieldReader(document.value, [], (path, reason, severity) => {
    problems.push({
      file: document.file,
      line: document.lineOf(path),
      object: name ?? "",
      field: formatPath(path),
      reason,
      severity,
      lastGood: false,
    });
  });
  const apiVersion = reader.requiredText("apiVersion");
  const kind = reader.requiredText("kind");
  const group = apiVersion.includes("/") ? apiVersion.split("/")[0] : "";
  const isOurs =
    group === (kind === "Deployment" ? "apps" : "") && Object.hasOwn(KNOWN_VERSIONS, kind);
  if (isOurs && apiVersion !== KNOWN_VERSIONS[kind]) {
    reader.complain("apiVersion", `expected "${KNOWN_VERSIONS[kind]}", not "${apiVersion}"`);
  }
  if (kind !== "" && !KIND.test(kind)) {
    reader.complain("kind", `"${kind}" is not a kind: letters and digits only, a capital first`);
  }
  if (UNSUPPORTED_KINDS.has(kind)) {
    reader.complain("kind", `"${kind}" does not run here: use a Deployment or a Pod`);
  }
  name = nameHint(document.value, kind);
  const metadata = parseMetadata(reader.requiredObject("metadata"), kind, isOurs);
  name = metadata.name === "" ? name : nameOfObject(kind, metadata.namespace, metadata.name);

  const object = parseKind(isOurs ? kind : "Other", { reader, metadata, document, apiVersion });
  const isWrong = problems.some(({ severity }) => severity === "problem");
  return { object: isWrong ? undefined : object, name, problems };
}

/** What an object seems to be called, for messages about its metadata. */
function nameHint(value: unknown, kind: string): string | undefined {
  if (kind === "" || typeof value !== "object" || value === null) return undefined;
  const metadata: unknown = Reflect.get(value, "metadata");
  if (typeof metadata !== "object" || metadata === null) return undefined;
  const name: unknown = Reflect.get(metadata, "name");
  const namespace: unknown = Reflect.get(metadata, "namespace") ?? "default";
  if (typeof name !== "string" || typeof namespace !== "string") return undefined;
  return nameOfObject(kind, CLUSTER_KINDS.has(kind) ? "" : namespace, name);
}

interface Parts {
  readonly reader: FieldReader;
  readonly metadata: Metadata;
  readonly document: Document;
  readonly apiVersion: string;
}

function parseKind(kind: string, parts: Parts): LocalObject | undefined {
  const { reader, metadata, document } = parts;
  switch (kind) {
    case "Namespace":
      reader.accept("spec", "status");
      reader.finish();
      return { kind, metadata };
    case "ServiceAccount":
      reader.accept("secrets", "imagePullSecrets", "automountServiceAccountToken");
      reader.finish();
      return { kind, metadata };
    case "Pod": {
      const spec = parsePodSpec(reader.requiredObject("spec"), document.file);
      reader.accept("status");
      reader.finish();
      return { kind, metadata, spec };
    }
    case "Deployment":
      return parseDeployment(parts);
    case "Service": {
      const service = parseService(reader.requiredObject("spec"), metadata);
      reader.accept("status");
      reader.finish();
      return service;
    }
    default: {
      const objectKind = reader.requiredText("kind");
      return { kind: "Other", apiVersion: parts.apiVersion, objectKind, metadata };
    }
  }
}

function parseMetadata(reader: FieldReader, kind: string, strict: boolean): Metadata {
  const name = reader.requiredText("name");
  const namespace = reader.text("namespace");
  const isClusterWide = CLUSTER_KINDS.has(kind);
  const pattern = kind === "Namespace" || kind === "Service" ? DNS_LABEL : DNS_SUBDOMAIN;
  if (name !== "" && !pattern.test(name)) {
    reader.complain("name", `"${name}" is not a name: lower case letters, digits and "-" only`);
  }
  if (namespace !== undefined && !DNS_LABEL.test(namespace)) {
    reader.complain("namespace", `"${namespace}" is not the name of a namespace`);
  }
  const metadata: Metadata = {
    namespace: isClusterWide ? "" : (namespace ?? "default"),
    name,
    labels: reader.labels("labels"),
    annotations: reader.labels("annotations"),
  };
  checkDataplaneMode(reader, metadata.labels);
  reader.accept("uid", "resourceVersion", "generation", "creationTimestamp", "managedFields");
  reader.accept("ownerReferences", "finalizers", "selfLink", "deletionTimestamp");
  reader.refuse(["generateName"], "is not supported here: give the object a name");
  if (strict) reader.finish();
  return metadata;
}

/** A misspelt value would leave pods outside the mesh without a word. */
export const DATAPLANE_MODE = "istio.io/dataplane-mode";

function checkDataplaneMode(reader: FieldReader, labels: Metadata["labels"]): void {
  const mode = labels[DATAPLANE_MODE];
  if (mode === undefined || mode === "ambient" || mode === "none") return;
  reader.complain("labels", `${DATAPLANE_MODE}: expected "ambient" or "none", not "${mode}"`);
}

const REPLICAS_MAX = 1_000;

function parseDeployment({ reader, metadata, document }: Parts): DeploymentObject {
  const spec = reader.requiredObject("spec");
  const replicas = spec.integer("replicas", { min: 0, max: REPLICAS_MAX }) ?? 1;
  const template = spec.requiredObject("template");
  const templateMetadata = template.object("metadata");
  const labels = templateMetadata?.labels("labels") ?? {};
  const annotations = templateMetadata?.labels("annotations") ?? {};
  if (templateMetadata) checkDataplaneMode(templateMetadata, labels);
  templateMetadata?.accept("name", "creationTimestamp", "namespace");
  templateMetadata?.finish();
  checkSelector(spec, labels);
  const strategy = parseStrategy(spec.object("strategy"));
  const pod = parsePodSpec(template.requiredObject("spec"), document.file);
  if (pod.restartPolicy !== "Always") {
    template.complain("spec", `restartPolicy "${pod.restartPolicy}" cannot be in a Deployment`);
  }
  template.finish();
  spec.accept("revisionHistoryLimit", "progressDeadlineSeconds", "minReadySeconds");
  spec.refuse(["paused"], "is not supported here");
  spec.finish();
  reader.accept("status");
  reader.finish();
  return {
    kind: "Deployment",
    metadata,
    replicas,
    strategy,
    template: { labels, annotations, spec: pod },
  };
}

/** Pods belong to their Deployment by name here; yet a selector that misses them is a mistake. */
function checkSelector(spec: FieldReader, labels: Readonly<Record<string, string>>): void {
  const selector = spec.requiredObject("selector");
  const wanted = Object.entries(selector.labels("matchLabels"));
  selector.refuse(["matchExpressions"], "is not supported here: use matchLabels");
  selector.finish();
  for (const [key, value] of wanted) {
    if (labels[key] === value) continue;
    selector.complain("matchLabels", `"${key}: ${value}" is not among the template's labels`);
  }
}

const DEFAULT_SHARE: Quantity = { percent: 25 };

function parseStrategy(reader: FieldReader | undefined): Strategy {
  const kind = reader?.oneOf("type", ["RollingUpdate", "Recreate"]) ?? "RollingUpdate";
  const rolling = reader?.object("rollingUpdate");
  const surge = parseQuantity(rolling, "maxSurge");
  const unavailable = parseQuantity(rolling, "maxUnavailable");
  rolling?.finish();
  reader?.finish();
  return kind === "Recreate" ? { kind } : { kind, surge, unavailable };
}

function parseQuantity(reader: FieldReader | undefined, name: string): Quantity {
  const value = reader?.raw(name);
  if (value === undefined) return DEFAULT_SHARE;
  if (typeof value === "number" && Number.isInteger(value) && value >= 0) return { pods: value };
  const percent = typeof value === "string" ? /^(\d{1,3})%$/.exec(value)?.[1] : undefined;
  if (percent === undefined) reader?.complain(name, "expected a number of pods or a percentage");
  return { percent: Number(percent ?? 0) };
}
