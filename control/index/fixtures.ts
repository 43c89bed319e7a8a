/** A mesh of a few objects for tests, each written as JSON. */
import assert from "node:assert/strict";
import type { Workload, WorkloadUid } from "#core/service/workload.ts";
import { rawObjectFromJson } from "../resources/fixtures.ts";
import { ObjectRegister } from "../resources/register.ts";
import { formatProblem } from "../source/problem.ts";
import { keyOfId, type RawObject } from "../source/source.ts";
import { MeshIndex } from "./mesh-index.ts";

/** A mesh with nothing special about it. */
export const SETTINGS = {
  clusterId: "Kubernetes",
  trustDomain: "cluster.local",
  rootNamespace: "istio-system",
  sameNode: "encrypted" as const,
  network: undefined,
};

/** A register and an index that are always told of all objects. */
export class Mesh {
  readonly index = new MeshIndex(SETTINGS);
  readonly register = new ObjectRegister(SETTINGS);
  #known = new Map<string, RawObject>();

  constructor(...texts: string[]) {
    this.set(...texts);
  }

  /** Makes these the only objects there are. */
  set(...texts: string[]): this {
    const objects = texts.map(rawObjectFromJson);
    const next = new Map(objects.map((object) => [keyOfId(object.id), object]));
    const gone = [...this.#known].filter(([key]) => !next.has(key));
    const deleted = gone.map(([, { id }]) => id);
    this.register.apply({ upserted: objects, deleted, problems: [] });
    this.#known = next;
    this.index.update(this.register.objects);
    return this;
  }

  workload(name: string, namespace = "shop"): Workload {
    const uid = `Kubernetes//Pod/${namespace}/${name}` as WorkloadUid;
    const workload = this.index.current().workloads.get(uid);
    assert.ok(workload, `there is no workload ${uid}`);
    return workload;
  }

  get problems(): readonly string[] {
    return [...this.register.problems, ...this.index.problems].map(formatProblem);
  }
}

/** What is special about a pod. */
export interface PodOptions {
  readonly namespace?: string;
  readonly ip?: string;
  readonly labels?: object;
  readonly annotations?: object;
  readonly spec?: object;
  readonly status?: object;
}

/** A ready pod on node `n1`, in namespace `shop` unless it is told otherwise. */
export function pod(name: string, options: PodOptions = {}): string {
  const { namespace = "shop", ip = "10.244.1.5", labels, annotations, spec, status } = options;
  return JSON.stringify({
    apiVersion: "v1",
    kind: "Pod",
    metadata: { name, namespace, labels, annotations },
    spec: {
      nodeName: "n1",
      containers: [{ name: "c", ports: [{ name: "http", containerPort: 8080 }] }],
      ...spec,
    },
    status: {
      phase: "Running",
      podIP: ip,
      conditions: [{ type: "Ready", status: "True" }],
      ...status,
    },
  });
}

/** A service with port 80, which leads to the port named `http`. */
export function service(name: string, spec: object, namespace = "shop"): string {
  const ports = [{ port: 80, targetPort: "http" }];
  return JSON.stringify({
    apiVersion: "v1",
    kind: "Service",
    metadata: { name, namespace },
    spec: { ports, ...spec },
  });
}

/** A PeerAuthentication. */
export function authentication(
  name: string,
  spec: object,
  namespace = "shop",
  created?: string,
): string {
  return JSON.stringify({
    apiVersion: "security.istio.io/v1",
    kind: "PeerAuthentication",
    metadata: { name, namespace, creationTimestamp: created },
    spec,
  });
}

/** An AuthorizationPolicy. */
export function authorization(name: string, spec: object, namespace = "shop"): string {
  return JSON.stringify({
    apiVersion: "security.istio.io/v1",
    kind: "AuthorizationPolicy",
    metadata: { name, namespace },
    spec,
  });
}

/** Selects the pods that are labelled as `web`. */
export const WEB = { selector: { matchLabels: { app: "web" } } };
