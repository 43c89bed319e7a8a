/**
 * A running cluster: what is wanted, what there is, and the loop that brings the two together.
 *
 * Every change (of objects, of a pod, of an agent) asks for a pass. A pass looks at everything,
 * decides by the pure functions of plan/, and starts what has to be started without waiting for it.
 */
import { randomUUID } from "node:crypto";
import { MeshError, reasonOf } from "#core/errors.ts";
import type { LocalChange, LocalProblem as Problem } from "#core/local-api.ts";
import { POD_NUMBERS, podAddress } from "./addresses.ts";
import { assignAddresses, NumberPool, type ServiceAddresses } from "./allocate.ts";
import { Cluster, type ClusterNode } from "./cluster.ts";
import type { LocalConfig } from "./config.ts";
import type { ControlState } from "./fabric/control-watch.ts";
import type { ControlProblem } from "./fabric/messages.ts";
import { Limiter } from "./limit.ts";
import { translate } from "./mesh/manifests.ts";
import { ObjectFolder } from "./mesh/object-folder.ts";
import { wantsMesh } from "./mesh/wants-mesh.ts";
import type { Names } from "./names.ts";
import { nameOfObject } from "./object/object.ts";
import {
  type Applied,
  apply,
  type FileText,
  follow,
  type Objects,
  type Reading,
  readFiles,
  remember,
  remove,
} from "./object/store.ts";
import { type NewPod, planPods } from "./plan/pods.ts";
import { problem, type Resolved, resolve } from "./plan/resolve.ts";
import { PodLoop } from "./pod/pod-loop.ts";
import { mergeProblems } from "./problems.ts";
import { Publisher } from "./publish.ts";
import type { Ledger } from "./state/ledger.ts";

export interface RuntimeEvents {
  /** Something a person may want to know, in a line. */
  readonly onNote: (note: string) => void;
  /** Something changed: a pod, an object, a problem. */
  readonly onChange: () => void;
}

/** Changes within this time are seen to together. */
const PASS_DELAY_MS = 5;
/** What could not be published once is tried again: nobody else would ask for it. */
const RETRY_MS = 1_000;
/** Control judges within a tenth of a second; whoever applies something waits no longer for it. */
const VERDICT_LIMIT_MS = 2_000;
/** Networks of pods that are made at a time: each is a handful of processes and a kernel lock. */
const NETWORKS_AT_A_TIME = 8;

const UNHEARD: Problem = {
  file: "",
  line: 0,
  object: "",
  field: "",
  reason: `control has not judged this within ${VERDICT_LIMIT_MS} ms, see "aquifer local status"`,
  severity: "note",
  lastGood: false,
};

export class Runtime {
  readonly config: LocalConfig;
  readonly names: Names;
  readonly cluster: Cluster;
  readonly #ledger: Ledger;
  readonly #events: RuntimeEvents;
  readonly #publisher: Publisher;
  readonly #limiter = new Limiter(NETWORKS_AT_A_TIME);
  readonly #numbers = new Map<string, NumberPool>();
  readonly #pods = new Map<string, PodLoop>();
  #objects: Objects = new Map();
  #reading: Reading | undefined;
  #fileProblems: readonly Problem[] = [];
  #controlProblems: readonly ControlProblem[] = [];
  #resolved: Resolved;
  #addresses: ServiceAddresses = new Map();
  #addressProblems: readonly Problem[] = [];
  /** Counts the changes of what is wanted: the newest, the last seen to, the last written. */
  #version = 0;
  #passedVersion = 0;
  #publishedVersion = 0;
  readonly #awaitPublished = new Set<() => void>();
  #order = 0;
  #pass: NodeJS.Timeout | undefined;
  #publishing: Promise<void> | undefined;
  #isDirty = false;
  #isEnding = false;

  constructor(config: LocalConfig, names: Names, ledger: Ledger, events: RuntimeEvents) {
    this.config = config;
    this.names = names;
    this.#ledger = ledger;
    this.#events = events;
    this.cluster = new Cluster(config, names, ledger, {
      onNote: events.onNote,
      onAgentUp: (node) => this.#onAgentUp(node),
      onProblems: (problems) => {
        this.#controlProblems = problems;
        events.onChange();
      },
    });
    this.#publisher = new Publisher(this.cluster, new ObjectFolder(names.objectsDir));
    for (const { name } of this.cluster.nodes) this.#numbers.set(name, new NumberPool(POD_NUMBERS));
    this.#resolved = resolve(this.#objects, this.#nodeNames);
  }

  get objects(): Objects {
    return this.#objects;
  }

  get pods(): readonly PodLoop[] {
    return [...this.#pods.values()];
  }

  get resolved(): Resolved {
    return this.#resolved;
  }

  get addresses(): ServiceAddresses {
    return this.#addresses;
  }

  get problems(): readonly Problem[] {
    return mergeProblems(
      [...this.#fileProblems, ...this.#standingProblems],
      this.#controlProblems.map((each) => translate(each, this.#publisher.files)),
    );
  }

  /** The watched files, whenever they changed. */
  follow(files: readonly FileText[]): Applied {
    const next = readFiles(files);
    const applied = follow(this.#objects, this.#reading, next);
    this.#reading = remember(this.#reading, next);
    this.#fileProblems = applied.problems;
    this.#take(applied);
    return applied;
  }

  /** Answers with what control makes of it too, unless that takes long. */
  async apply(files: readonly FileText[]): Promise<Applied> {
    const reading = readFiles(files);
    const applied = apply(this.#objects, reading);
    this.#take(applied);
    const verdict = await this.hearControl(AbortSignal.timeout(VERDICT_LIMIT_MS));
    const known = new Set([...reading.objects.keys(), ...reading.wrong]);
    const problems = mergeProblems(
      [...applied.problems, ...this.#standingProblems],
      (verdict?.problems ?? []).map((each) => translate(each, this.#publisher.files)),
    ).filter((each) => known.has(each.object) || applied.problems.includes(each));
    const isUnheard = this.config.mesh && verdict === undefined;
    return { ...applied, problems: isUnheard ? [...problems, UNHEARD] : problems };
  }

  /**
   * What control says of all that is wanted now.
   *
   * @returns undefined where it says nothing until `signal` is aborted, and without a mesh
   */
  async hearControl(signal: AbortSignal): Promise<ControlState | undefined> {
    if (!this.config.mesh) return undefined;
    const version = this.#version;
    while (this.#publishedVersion < version && !signal.aborted) await this.#nextPublished(signal);
    return await this.cluster.askControl(signal);
  }

  /** @throws MeshError `REQUEST_REFUSED` where a name is that of nothing */
  remove(names: readonly string[]): readonly LocalChange[] {
    const own = names.map((name) => this.#ownPod(name));
    const unknown = names.find((name, index) => !this.#objects.has(name) && !own[index]);
    if (unknown !== undefined) {
      throw new MeshError("REQUEST_REFUSED", `Cannot delete ${unknown}: there is no such object`);
    }
    const applied = remove(this.#objects, names);
    this.#take(applied);
    const ended = own.filter((pod) => pod !== undefined);
    for (const pod of ended) this.#end(pod);
    const changes = ended.map((pod): LocalChange => {
      return { object: nameOfPod(pod), action: "deleted" };
    });
    return [...applied.changes, ...changes];
  }

  /** @throws MeshError `REQUEST_REFUSED` where there is no such Deployment */
  scale(namespace: string, name: string, replicas: number): void {
    const key = nameOfObject("Deployment", namespace, name);
    const stored = this.#objects.get(key);
    if (stored?.object.kind !== "Deployment") {
      throw new MeshError("REQUEST_REFUSED", `Cannot scale ${key}: there is no such object`);
    }
    const object = { ...stored.object, replicas };
    this.#objects = new Map(this.#objects).set(key, { ...stored, object });
    this.#requestPass();
  }

  /** Everything that is wanted is there, and ready. */
  get isSettled(): boolean {
    const { deployments, pods } = this.#resolved;
    if (this.#pass !== undefined || this.#publishing !== undefined) return false;
    const existing = this.pods.map((pod) => pod.existing);
    const settled = deployments.every(({ name, templateHash, object }) => {
      const own = existing.filter((pod) => pod.owner?.deployment === name);
      const current = own.filter(({ owner }) => owner?.templateHash === templateHash);
      return own.length === object.replicas && current.filter((p) => p.ready).length === own.length;
    });
    return settled && pods.every((pod) => this.#isPodSettled(pod.object.metadata));
  }

  #isPodSettled({ namespace, name }: { namespace: string; name: string }): boolean {
    const pod = this.pods.find((each) => nameOfPod(each) === nameOfObject("Pod", namespace, name));
    return pod !== undefined && (pod.ready || pod.phase === "Succeeded" || pod.phase === "Failed");
  }

  /** @param graceMs  the most that any pod gets to end by itself */
  async stop(graceMs: number): Promise<void> {
    this.#isEnding = true;
    clearTimeout(this.#pass);
    const ends = await Promise.allSettled(this.pods.map((pod) => this.#stopPod(pod, graceMs)));
    for (const end of ends) {
      if (end.status === "rejected") this.#events.onNote(reasonOf(end.reason));
    }
    await this.#publishing;
    await this.cluster.stop();
  }

  /** All that the runtime itself finds wrong with what is wanted. */
  get #standingProblems(): readonly Problem[] {
    return [...this.#resolved.problems, ...this.#addressProblems];
  }

  async #nextPublished(signal: AbortSignal): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    const wake = () => resolve();
    this.#awaitPublished.add(wake);
    signal.addEventListener("abort", wake, { once: true });
    await promise;
    signal.removeEventListener("abort", wake);
    this.#awaitPublished.delete(wake);
  }

  get #nodeNames(): readonly string[] {
    return this.cluster.nodes.map(({ name }) => name);
  }

  #take(applied: Applied): void {
    this.#objects = applied.objects;
    this.#version += 1;
    // At once, for the answer to whoever asked; the rest can wait for the pass.
    this.#resolved = resolve(this.#objects, this.#nodeNames);
    this.#requestPass();
  }

  #requestPass(): void {
    if (this.#isEnding || this.#pass !== undefined) return;
    this.#pass = setTimeout(() => {
      this.#pass = undefined;
      this.#runPass();
    }, PASS_DELAY_MS);
  }

  #runPass(): void {
    this.#passedVersion = this.#version;
    this.#resolved = resolve(this.#objects, this.#nodeNames);
    this.#assignAddresses();
    const free = this.pods.filter((pod) => !this.#isHeld(pod));
    const commands = planPods({
      nodes: this.#nodeNames,
      deployments: this.#resolved.deployments,
      pods: this.#resolved.pods,
      existing: free.map((pod) => pod.existing),
      suffix,
    });
    for (const command of commands) {
      switch (command.kind) {
        case "create":
          this.#create(command.pod);
          break;
        case "delete": {
          const pod = this.#pods.get(command.uid);
          if (pod !== undefined) this.#end(pod);
          break;
        }
      }
    }
    for (const pod of free) this.#update(pod);
    this.#publish();
    this.#events.onChange();
  }

  #isHeld(pod: PodLoop): boolean {
    const owner = pod.options.pod.owner?.deployment ?? nameOfPod(pod);
    return this.#resolved.held.has(owner);
  }

  #assignAddresses(): void {
    const { services } = this.#resolved;
    const { addresses, refused } = assignAddresses(services, this.#addresses);
    this.#addresses = addresses;
    this.#addressProblems = [...refused].flatMap(([name, reason]) => {
      const stored = this.#objects.get(name);
      if (stored === undefined) return [];
      return [problem(stored.document, name, ["spec", "clusterIP"], reason)];
    });
  }

  #create(pod: NewPod): void {
    const node = this.cluster.nodes.find(({ name }) => name === pod.node);
    const number = this.#numbers.get(pod.node)?.take();
    if (node === undefined || number === undefined) {
      this.#events.onNote(`Cannot start pod ${pod.namespace}/${pod.name}: ${pod.node} is full`);
      return;
    }
    const uid = randomUUID();
    const options = {
      pod,
      uid,
      order: this.#order++,
      nodeNumber: node.number,
      number,
      addresses: podAddress(node.number, number),
      names: this.names,
      ledger: this.#ledger,
      limiter: this.#limiter,
      agent: node.agent,
      prober: node.prober,
      baseEnvironment: this.config.podEnvironment,
      onChange: () => {
        this.#requestPass();
        this.#events.onChange();
      },
      onNote: (note: string) => {
        this.#events.onNote(`pod ${pod.namespace}/${pod.name}: ${note}`);
      },
    };
    const loop = new PodLoop(options, this.#wantsMesh(pod));
    this.#pods.set(uid, loop);
    void loop.start(); // never rejects
  }

  #wantsMesh({ namespace, labels }: Pick<NewPod, "namespace" | "labels">): boolean {
    return wantsMesh(this.#resolved.namespaces.get(namespace) ?? {}, labels);
  }

  /** Labels of a namespace, and of a pod on its own, may change while pods run. */
  #update(pod: PodLoop): void {
    const { namespace, name, owner } = pod.options.pod;
    const stored = this.#objects.get(nameOfObject("Pod", namespace, name));
    const isOwn = owner === undefined && stored?.object.kind === "Pod";
    const metadata = isOwn ? stored.object.metadata : pod;
    const { labels, annotations } = metadata;
    pod.update({ labels, annotations }, this.#wantsMesh({ namespace, labels }));
  }

  #ownPod(name: string): PodLoop | undefined {
    return this.pods.find((pod) => nameOfPod(pod) === name && pod.options.pod.owner !== undefined);
  }

  #end(pod: PodLoop): void {
    if (pod.terminating) return;
    this.#stopPod(pod).catch((error: unknown) => this.#events.onNote(reasonOf(error)));
  }

  async #stopPod(pod: PodLoop, graceMsMax = Number.POSITIVE_INFINITY): Promise<void> {
    const { uid, number } = pod.options;
    const { node, spec } = pod.options.pod;
    await pod.stop(Math.min(spec.terminationGraceMs, graceMsMax));
    if (this.#pods.delete(uid)) this.#numbers.get(node)?.release(number);
    this.#requestPass();
    this.#events.onChange();
  }

  #onAgentUp(node: ClusterNode): void {
    for (const pod of this.pods) {
      if (pod.options.pod.node === node.name) pod.enrolAgain();
    }
    this.#events.onChange();
  }

  /** One at a time; changes that come meanwhile are published together afterwards. */
  #publish(): void {
    this.#isDirty = true;
    this.#publishing ??= this.#publishAll()
      .catch((error: unknown) => {
        this.#events.onNote(reasonOf(error));
        setTimeout(() => this.#requestPass(), RETRY_MS).unref();
      })
      .finally(() => {
        this.#publishing = undefined;
        this.#events.onChange();
      });
  }

  async #publishAll(): Promise<void> {
    while (this.#isDirty && !this.#isEnding) {
      this.#isDirty = false;
      const version = this.#passedVersion;
      await this.#publisher.publish({
        objects: this.#objects,
        namespaces: this.#resolved.namespaces.keys(),
        services: this.#resolved.services,
        addresses: this.#addresses,
        pods: this.pods,
      });
      this.#publishedVersion = version;
      for (const wake of this.#awaitPublished) wake();
    }
  }
}

export function nameOfPod({ options }: PodLoop): string {
  return nameOfObject("Pod", options.pod.namespace, options.pod.name);
}

/** Letters and digits that are not taken for each other, and make no words (as Kubernetes). */
const SUFFIX_LETTERS = "bcdfghjklmnpqrstvwxz2456789";
const SUFFIX_LENGTH = 5;

function suffix(): string {
  const pick = () => SUFFIX_LETTERS[Math.floor(Math.random() * SUFFIX_LETTERS.length)] ?? "x";
  return Array.from({ length: SUFFIX_LENGTH }, pick).join("");
}
