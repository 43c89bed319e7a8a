/**
 * What has to be started and stopped so that the pods are those that the objects ask for.
 *
 * `planPods()` decides and does nothing else. It is asked again after every change of objects and
 * pods, so it never plans ahead: each answer is right for the moment it was given in.
 */
import type { DeploymentObject, PodObject, PodSpec, Quantity } from "../object/object.ts";
import { chooseNode, type Placed } from "./spread.ts";

export interface Owner {
  /** `Deployment shop/cart`. */
  readonly deployment: string;
  /** Changes with the template: pods of an old one are replaced. */
  readonly templateHash: string;
}

/** A pod that exists, as far as planning is concerned. */
export interface ExistingPod {
  readonly uid: string;
  readonly namespace: string;
  readonly name: string;
  readonly node: string;
  readonly owner: Owner | undefined;
  /** Of the spec that it was started with. */
  readonly specHash: string;
  readonly ready: boolean;
  readonly terminating: boolean;
  /** Grows with every pod that is made. */
  readonly order: number;
}

export interface WantedDeployment {
  readonly name: string;
  readonly templateHash: string;
  readonly object: DeploymentObject;
}

export interface WantedPod {
  readonly specHash: string;
  readonly object: PodObject;
}

export interface NewPod {
  readonly namespace: string;
  readonly name: string;
  readonly node: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly annotations: Readonly<Record<string, string>>;
  readonly spec: PodSpec;
  readonly specHash: string;
  readonly owner: Owner | undefined;
}

export type PodCommand =
  | { readonly kind: "create"; readonly pod: NewPod }
  | { readonly kind: "delete"; readonly uid: string };

export interface PodPlanInput {
  readonly nodes: readonly string[];
  readonly deployments: readonly WantedDeployment[];
  readonly pods: readonly WantedPod[];
  readonly existing: readonly ExistingPod[];
  /** Five characters that make a pod's name unique. */
  readonly suffix: () => string;
}

export function planPods(input: PodPlanInput): readonly PodCommand[] {
  const commands: PodCommand[] = [];
  const placed: Placed[] = input.existing.map(({ node, owner }) => {
    return { node, deployment: owner?.deployment };
  });
  const place = (spec: PodSpec, deployment: string | undefined): string => {
    const node = spec.nodeName ?? chooseNode(input.nodes, placed, deployment);
    placed.push({ node, deployment });
    return node;
  };
  const wanted = new Set<string>();
  for (const pod of input.pods) {
    const { namespace, name } = pod.object.metadata;
    wanted.add(`${namespace}/${name}`);
    commands.push(...planPod(pod, input.existing, place));
  }
  for (const deployment of input.deployments) {
    const own = input.existing.filter((pod) => pod.owner?.deployment === deployment.name);
    commands.push(...planDeployment(deployment, own, place, input.suffix));
  }
  const names = new Set(input.deployments.map(({ name }) => name));
  for (const pod of input.existing) {
    const isWanted =
      pod.owner === undefined
        ? wanted.has(`${pod.namespace}/${pod.name}`)
        : names.has(pod.owner.deployment);
    if (!isWanted && !pod.terminating) commands.push({ kind: "delete", uid: pod.uid });
  }
  return commands;
}

type Place = (spec: PodSpec, deployment: string | undefined) => string;

/** A pod cannot change its spec: it goes, and comes back under the same name when it is gone. */
function planPod(
  { object, specHash }: WantedPod,
  existing: readonly ExistingPod[],
  place: Place,
): readonly PodCommand[] {
  const { namespace, name, labels, annotations } = object.metadata;
  const [current] = existing.filter((pod) => pod.namespace === namespace && pod.name === name);
  if (current === undefined) {
    const { spec } = object;
    const node = place(spec, undefined);
    const pod = { namespace, name, node, labels, annotations, spec, specHash, owner: undefined };
    return [{ kind: "create", pod }];
  }
  if (current.terminating || current.specHash === specHash) return [];
  return [{ kind: "delete", uid: current.uid }];
}

/** @see https://kubernetes.io/docs/concepts/workloads/controllers/deployment/#strategy */
function planDeployment(
  wanted: WantedDeployment,
  own: readonly ExistingPod[],
  place: Place,
  suffix: () => string,
): readonly PodCommand[] {
  const { replicas, strategy } = wanted.object;
  const alive = own.filter((pod) => !pod.terminating);
  const current = alive.filter((pod) => pod.owner?.templateHash === wanted.templateHash);
  const old = alive.filter((pod) => pod.owner?.templateHash !== wanted.templateHash);
  if (strategy.kind === "Recreate") {
    if (old.length > 0) return old.map(({ uid }) => ({ kind: "delete", uid }));
    const leaving = own.filter((pod) => pod.owner?.templateHash !== wanted.templateHash);
    if (leaving.length > 0) return [];
  }
  const surge = strategy.kind === "Recreate" ? 0 : podsOf(strategy.surge, replicas, Math.ceil);
  const gap =
    strategy.kind === "Recreate" ? replicas : podsOf(strategy.unavailable, replicas, Math.floor);
  // With neither, nothing could ever move; Kubernetes lets one be missing then.
  const missingMax = surge === 0 && gap === 0 ? 1 : gap;

  const room = old.length === 0 ? replicas : replicas + surge;
  const missing = Math.min(replicas - current.length, room - alive.length);
  const creations = Array.from({ length: Math.max(0, missing) }, (): PodCommand => {
    return { kind: "create", pod: podOf(wanted, place, suffix) };
  });
  const surplus = leastUseful(current).slice(0, Math.max(0, current.length - replicas));
  const dropped = dropOld(old, alive, replicas - missingMax);
  const deletions = [...surplus, ...dropped].map(
    ({ uid }): PodCommand => ({ kind: "delete", uid }),
  );
  return [...deletions, ...creations];
}

function podsOf(quantity: Quantity, replicas: number, round: (n: number) => number): number {
  return "pods" in quantity ? quantity.pods : round((quantity.percent * replicas) / 100);
}

/** Those of no use at once, of the others as many as can be missed. */
function dropOld(
  old: readonly ExistingPod[],
  alive: readonly ExistingPod[],
  readyMin: number,
): readonly ExistingPod[] {
  const spare = alive.filter(({ ready }) => ready).length - readyMin;
  const useless = old.filter(({ ready }) => !ready);
  const useful = old.filter(({ ready }) => ready);
  return [...useless, ...useful.slice(0, Math.max(0, spare))];
}

/** Not ready before ready, then from the node that has most of them, then the newest. */
function leastUseful(pods: readonly ExistingPod[]): readonly ExistingPod[] {
  const left = [...pods];
  const sorted: ExistingPod[] = [];
  const crowd = (pod: ExistingPod) => left.filter(({ node }) => node === pod.node).length;
  while (left.length > 0) {
    const [first] = left.toSorted((a, b) => {
      return Number(a.ready) - Number(b.ready) || crowd(b) - crowd(a) || b.order - a.order;
    });
    if (first === undefined) break;
    left.splice(left.indexOf(first), 1);
    sorted.push(first);
  }
  return sorted;
}

function podOf(wanted: WantedDeployment, place: Place, suffix: () => string): NewPod {
  const { metadata, template } = wanted.object;
  const { templateHash } = wanted;
  return {
    namespace: metadata.namespace,
    name: `${metadata.name}-${templateHash}-${suffix()}`,
    node: place(template.spec, wanted.name),
    labels: { ...template.labels, "pod-template-hash": templateHash },
    annotations: template.annotations,
    spec: template.spec,
    specHash: templateHash,
    owner: { deployment: wanted.name, templateHash },
  };
}
