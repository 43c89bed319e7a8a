import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { DeploymentObject, PodObject, PodSpec, Strategy } from "../object/object.ts";
import { type ExistingPod, type PodCommand, planPods, type WantedDeployment } from "./pods.ts";
import { chooseNode } from "./spread.ts";

const NODES = ["n1", "n2"];
const SPEC: PodSpec = {
  serviceAccount: "default",
  nodeName: undefined,
  hostname: undefined,
  restartPolicy: "Always",
  terminationGraceMs: 0,
  containers: [],
  raw: {},
};
const ROLLING: Strategy = {
  kind: "RollingUpdate",
  surge: { percent: 25 },
  unavailable: { percent: 25 },
};

interface WantedOptions {
  readonly replicas: number;
  readonly hash?: string;
  readonly strategy?: Strategy;
}

function wanted({ replicas, hash = "new", strategy = ROLLING }: WantedOptions): WantedDeployment {
  const metadata = { namespace: "shop", name: "web", labels: {}, annotations: {} };
  const template = { labels: {}, annotations: {}, spec: SPEC };
  const object: DeploymentObject = { kind: "Deployment", metadata, replicas, strategy, template };
  return { name: "Deployment shop/web", templateHash: hash, object };
}

function existing(uid: string, change: Partial<ExistingPod> & { hash?: string } = {}): ExistingPod {
  const { hash = "new", ...rest } = change;
  return {
    uid,
    namespace: "shop",
    name: `web-${uid}`,
    node: "n1",
    owner: { deployment: "Deployment shop/web", templateHash: hash },
    specHash: hash,
    ready: true,
    terminating: false,
    order: 0,
    ...rest,
  };
}

function plan(deployment: WantedDeployment | undefined, pods: readonly ExistingPod[]) {
  return summary(
    planPods({
      nodes: NODES,
      deployments: deployment ? [deployment] : [],
      pods: [],
      existing: pods,
      suffix: () => "abcde",
    }),
  );
}

function summary(commands: readonly PodCommand[]): readonly string[] {
  return commands.map((command) => {
    return command.kind === "create" ? `create on ${command.pod.node}` : `delete ${command.uid}`;
  });
}

describe("planPods() for a Deployment", () => {
  it("makes what is missing, spread over the nodes", () => {
    assert.deepEqual(plan(wanted({ replicas: 3 }), []), [
      "create on n1",
      "create on n2",
      "create on n1",
    ]);
    assert.deepEqual(plan(wanted({ replicas: 2 }), [existing("a")]), ["create on n2"]);
  });

  it("does nothing where all is as it should be", () => {
    assert.deepEqual(plan(wanted({ replicas: 1 }), [existing("a")]), []);
  });

  it("scales down by those that serve least: not ready, crowded, newest", () => {
    const pods = [
      existing("old", { order: 1 }),
      existing("alone", { order: 2, node: "n2" }),
      existing("young", { order: 3 }),
      existing("sick", { order: 0, ready: false, node: "n2" }),
    ];
    assert.deepEqual(plan(wanted({ replicas: 3 }), pods), ["delete sick"]);
    assert.deepEqual(plan(wanted({ replicas: 2 }), pods), ["delete sick", "delete young"]);
  });

  it("replaces pods of an old template: one more first, then one less", () => {
    const old = [existing("a", { hash: "old" }), existing("b", { hash: "old" })];
    assert.deepEqual(plan(wanted({ replicas: 2 }), old), ["create on n2"]);
    const starting = [...old, existing("c", { ready: false })];
    assert.deepEqual(plan(wanted({ replicas: 2 }), starting), []);
    const started = [...old, existing("c")];
    assert.deepEqual(plan(wanted({ replicas: 2 }), started), ["delete a"]);
  });

  it("does not wait for old pods that serve nobody", () => {
    const old = [existing("a", { hash: "old", ready: false })];
    assert.deepEqual(plan(wanted({ replicas: 1 }), old), ["delete a", "create on n2"]);
  });

  it("keeps away from both at once with Recreate", () => {
    const strategy: Strategy = { kind: "Recreate" };
    const old = existing("a", { hash: "old" });
    assert.deepEqual(plan(wanted({ replicas: 1, strategy }), [old]), ["delete a"]);
    const leaving = { ...old, terminating: true };
    assert.deepEqual(plan(wanted({ replicas: 1, strategy }), [leaving]), []);
    assert.deepEqual(plan(wanted({ replicas: 1, strategy }), []), ["create on n1"]);
  });

  it("ends the pods of a Deployment that is gone, once", () => {
    const pods = [existing("a"), existing("b", { terminating: true })];
    assert.deepEqual(plan(undefined, pods), ["delete a"]);
  });
});

describe("planPods() for a pod of its own", () => {
  const object: PodObject = {
    kind: "Pod",
    metadata: { namespace: "shop", name: "web-a", labels: {}, annotations: {} },
    spec: { ...SPEC, nodeName: "n2" },
  };
  const planPod = (pods: readonly ExistingPod[]) => {
    const pod = { specHash: "new", object };
    const input = { nodes: NODES, deployments: [], pods: [pod], suffix: () => "x" };
    return summary(planPods({ ...input, existing: pods }));
  };

  it("runs where it says", () => {
    assert.deepEqual(planPod([]), ["create on n2"]);
  });

  it("goes and comes back under its name when its spec changes", () => {
    const old = existing("a", { owner: undefined, hash: "old" });
    assert.deepEqual(planPod([{ ...old, owner: undefined }]), ["delete a"]);
    assert.deepEqual(planPod([{ ...old, owner: undefined, terminating: true }]), []);
  });
});

describe("chooseNode()", () => {
  it("prefers few of its own kind over few in all", () => {
    const placed = [
      { node: "n1", deployment: "a" },
      { node: "n2", deployment: "b" },
      { node: "n2", deployment: "b" },
    ];
    assert.equal(chooseNode(NODES, placed, "a"), "n2");
    assert.equal(chooseNode(NODES, placed, "c"), "n1");
    assert.equal(chooseNode(NODES, placed, undefined), "n1");
  });
});
