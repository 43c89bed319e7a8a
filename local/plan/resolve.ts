/** What the objects ask for together, and what is wrong between them. */

import type { LocalProblem as Problem } from "#core/local-api.ts";
import type { Document, FieldPath } from "../object/document.ts";
import { formatPath } from "../object/document.ts";
import {
  type DeploymentObject,
  nameOf,
  type PodObject,
  type PodSpec,
  type ServiceObject,
} from "../object/object.ts";
import type { Objects, Stored } from "../object/store.ts";
import { hashOf } from "./hash.ts";
import type { WantedDeployment, WantedPod } from "./pods.ts";

type Labels = Readonly<Record<string, string>>;

export interface Resolved {
  /** Labels of each namespace, by its name. */
  readonly namespaces: ReadonlyMap<string, Labels>;
  readonly deployments: readonly WantedDeployment[];
  readonly pods: readonly WantedPod[];
  readonly services: readonly ServiceObject[];
  /**
   * Deployments and pods that miss something, by `nameOf()`. What runs of them goes on: what they
   * lack may be back in a moment, and nobody asked for their end.
   */
  readonly held: ReadonlySet<string>;
  readonly problems: readonly Problem[];
}

/** A cluster has them before anybody makes an object. */
export const INITIAL_NAMESPACES = ["default", "istio-system", "kube-system"] as const;

export function resolve(objects: Objects, nodes: readonly string[]): Resolved {
  const stored = [...objects.values()];
  const namespaces = namespacesOf(stored);
  const accounts = new Set(
    stored.filter(({ object }) => object.kind === "ServiceAccount").map((s) => nameOf(s.object)),
  );
  const problems: Problem[] = [];
  const held = new Set<string>();
  const deployments: WantedDeployment[] = [];
  const pods: WantedPod[] = [];
  const services: ServiceObject[] = [];
  const holdIf = (problem: Problem | undefined) => {
    if (problem === undefined) return false;
    problems.push(problem);
    held.add(problem.object);
    return true;
  };
  for (const { object, document } of stored) {
    if (holdIf(missingNamespace(object.metadata.namespace, nameOf(object), namespaces, document))) {
      continue;
    }
    const check = (spec: PodSpec, path: FieldPath) => {
      const found = { namespace: object.metadata.namespace, name: nameOf(object), document };
      return holdIf(missingPart(spec, path, { ...found, accounts, nodes }));
    };
    switch (object.kind) {
      case "Deployment":
        if (!check(object.template.spec, ["spec", "template", "spec"])) {
          deployments.push(wantedDeployment(object));
        }
        break;
      case "Pod":
        if (!check(object.spec, ["spec"])) pods.push(wantedPod(object));
        break;
      case "Service":
        services.push(object);
        break;
      case "Namespace":
      case "ServiceAccount":
      case "Other":
        break;
    }
  }
  return { namespaces, deployments, pods, services, held, problems };
}

function namespacesOf(stored: readonly Stored[]): ReadonlyMap<string, Labels> {
  const namespaces = new Map<string, Labels>(INITIAL_NAMESPACES.map((name) => [name, {}]));
  for (const { object } of stored) {
    if (object.kind === "Namespace") namespaces.set(object.metadata.name, object.metadata.labels);
  }
  return namespaces;
}

function missingNamespace(
  namespace: string,
  name: string,
  namespaces: ReadonlyMap<string, Labels>,
  document: Document,
): Problem | undefined {
  if (namespace === "" || namespaces.has(namespace)) return undefined;
  return problem(document, name, ["metadata", "namespace"], `there is no Namespace "${namespace}"`);
}

interface Surroundings {
  readonly namespace: string;
  readonly name: string;
  readonly document: Document;
  readonly accounts: ReadonlySet<string>;
  readonly nodes: readonly string[];
}

function missingPart(
  { serviceAccount, nodeName }: PodSpec,
  path: FieldPath,
  { namespace, name, document, accounts, nodes }: Surroundings,
): Problem | undefined {
  const account = `ServiceAccount ${namespace}/${serviceAccount}`;
  if (serviceAccount !== "default" && !accounts.has(account)) {
    return problem(document, name, [...path, "serviceAccountName"], `there is no ${account}`);
  }
  if (nodeName !== undefined && !nodes.includes(nodeName)) {
    const there = nodes.join(", ");
    const reason = `there is no node "${nodeName}", only ${there} (see --nodes)`;
    return problem(document, name, [...path, "nodeName"], reason);
  }
  return undefined;
}

/** @param object  `nameOf()` it */
export function problem(
  document: Document,
  object: string,
  path: FieldPath,
  reason: string,
): Problem {
  return {
    file: document.file,
    line: document.lineOf(path),
    object,
    field: formatPath(path),
    reason,
    severity: "problem",
    lastGood: false,
  };
}

function wantedDeployment(object: DeploymentObject): WantedDeployment {
  return { name: nameOf(object), templateHash: hashOf(object.template), object };
}

function wantedPod(object: PodObject): WantedPod {
  return { specHash: hashOf(object.spec), object };
}
