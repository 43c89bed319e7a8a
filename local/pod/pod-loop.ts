/** One pod from its network to its end. */
import { mkdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { reasonOf } from "#core/errors.ts";
import { type DualAddress, nodeAddress } from "../addresses.ts";
import type { Limiter } from "../limit.ts";
import type { AgentClient } from "../mesh/agent-client.ts";
import type { Names } from "../names.ts";
import { addNetns, deleteNetns, ipBatch, netnsPath } from "../network/ip.ts";
import { podLinkName, podLinks, podUplink } from "../network/links.ts";
import type { PodView } from "../plan/endpoints.ts";
import type { ExistingPod, NewPod } from "../plan/pods.ts";
import type { NodeProber } from "../prober/node-prober.ts";
import { createCgroup, removeCgroup } from "../state/cgroup.ts";
import type { Ledger } from "../state/ledger.ts";
import { type Container, isReady, type PodPhase, podPhase } from "./container.ts";
import { ContainerLoop } from "./container-loop.ts";
import { commandOf, environmentOf, type PodFields } from "./environment.ts";
import { resolverSettings, writePodFiles } from "./files.ts";
import { probePorts, STRICT_EGRESS, strictEgress } from "./guard.ts";

export type MeshState =
  | { readonly phase: "outside" }
  | { readonly phase: "enrolling"; readonly reason: string }
  | { readonly phase: "enrolled" }
  | { readonly phase: "leaving"; readonly reason: string };

export interface ContainerView {
  readonly name: string;
  readonly state: Container;
  readonly pid: number | undefined;
}

export interface PodOptions {
  readonly pod: NewPod;
  readonly uid: string;
  readonly order: number;
  readonly nodeNumber: number;
  /** Of the pod on its node. */
  readonly number: number;
  readonly addresses: DualAddress;
  readonly names: Names;
  readonly ledger: Ledger;
  readonly limiter: Limiter;
  /** Of the pod's node; undefined where the runtime has no mesh. */
  readonly agent: AgentClient | undefined;
  /** Of the pod's node, likewise. */
  readonly prober: NodeProber | undefined;
  /** What every container's environment begins with. */
  readonly baseEnvironment: Readonly<Record<string, string>>;
  readonly onChange: () => void;
  readonly onNote: (note: string) => void;
}

/** @see https://istio.io/latest/docs/reference/config/annotations/ */
const DNS_CAPTURE = "ambient.istio.io/dns-capture";

/** An agent that is being started again answers within a second. */
const RETRY_MIN_MS = 50;
const RETRY_MAX_MS = 2_000;

/**
 * How long peers may go on sending through the tunnel after the pod has said that it leaves: the
 * time a change needs to reach every agent. Its own agent serves them until then.
 */
const LEAVE_DELAY_MS = 300;

export class PodLoop {
  readonly options: PodOptions;
  readonly createdAt = new Date();
  readonly #netns: string;
  readonly #cgroup: string;
  readonly #filesDir: string;
  readonly #containers: readonly ContainerLoop[];
  readonly #ending = new AbortController();
  #retry = new AbortController();
  #hasNetwork = false;
  #wantsMesh: boolean;
  #mesh: MeshState = { phase: "outside" };
  #meshWork: Promise<void> | undefined;
  #started: Promise<void> | undefined;
  #failure: string | undefined;
  #lastNote: string | undefined;
  #labels: NewPod["labels"];
  #annotations: NewPod["annotations"];

  constructor(options: PodOptions, wantsMesh: boolean) {
    const { names, pod } = options;
    this.options = options;
    this.#labels = pod.labels;
    this.#annotations = pod.annotations;
    this.#wantsMesh = wantsMesh;
    this.#netns = names.podNetns(pod.node, pod);
    this.#cgroup = names.podCgroup(pod.node, pod);
    this.#filesDir = names.podDir(pod);
    this.#containers = pod.spec.containers.map((spec) => this.#containerOf(spec));
  }

  get netns(): string {
    return this.#netns;
  }

  get cgroup(): string {
    return this.#cgroup;
  }

  get mesh(): MeshState {
    return this.#mesh;
  }

  get terminating(): boolean {
    return this.#ending.signal.aborted;
  }

  /** Why the pod could not be made, or the last thing that went wrong in it. */
  get message(): string | undefined {
    return this.#failure ?? this.#lastNote;
  }

  get phase(): PodPhase {
    return podPhase(this.containers.map(({ state }) => state));
  }

  get ready(): boolean {
    return !this.terminating && isReady(this.containers.map(({ state }) => state));
  }

  get containers(): readonly ContainerView[] {
    return this.#containers;
  }

  get labels(): NewPod["labels"] {
    return this.#labels;
  }

  get annotations(): NewPod["annotations"] {
    return this.#annotations;
  }

  get existing(): ExistingPod {
    const { uid, order, pod } = this.options;
    const { namespace, name, node, owner, specHash } = pod;
    const { ready, terminating } = this;
    return { uid, namespace, name, node, owner, specHash, ready, terminating, order };
  }

  /** undefined while it has no network. */
  get view(): PodView | undefined {
    if (!this.#hasNetwork) return undefined;
    const { uid, addresses, pod } = this.options;
    const { namespace, name, node, spec } = pod;
    return {
      uid,
      namespace,
      name,
      node,
      hostname: spec.hostname,
      labels: this.#labels,
      addresses,
      ports: spec.containers.flatMap(({ ports }) => ports),
      ready: this.ready,
      terminating: this.terminating,
    };
  }

  /** What may change while the pod runs: its metadata, and whether it belongs in the mesh. */
  update(metadata: Pick<NewPod, "labels" | "annotations">, wantsMesh: boolean): void {
    const isAsBefore = metadata.annotations[STRICT_EGRESS] === this.#annotations[STRICT_EGRESS];
    this.#labels = metadata.labels;
    this.#annotations = metadata.annotations;
    this.#wantsMesh = wantsMesh;
    if (!isAsBefore && this.#mesh.phase === "enrolled") {
      this.#mesh = { phase: "enrolling", reason: "its annotations have changed" };
    }
    if (this.#hasNetwork && !this.terminating) void this.#followMesh();
  }

  /** When the agent has come up: whoever waits for it need not wait longer. */
  enrolAgain(): void {
    this.#retry.abort();
    this.#retry = new AbortController();
    if (this.#mesh.phase !== "enrolled") return;
    // It may be one that does not know the pod.
    this.#mesh = { phase: "enrolling", reason: "the agent was started again" };
    void this.#followMesh();
  }

  /** Never rejects: what goes wrong is in `message`. */
  async start(): Promise<void> {
    this.#started = this.#start();
    await this.#started;
  }

  async #start(): Promise<void> {
    try {
      const { limiter } = this.options;
      await limiter.run(() => this.#makeNetwork());
      this.#hasNetwork = true;
      this.options.onChange();
      // Fails closed: without the agent's word no process of the pod sends a byte.
      await this.#followMesh();
      if (this.terminating) return;
      await Promise.all(this.#containers.map((container) => container.start()));
    } catch (error) {
      this.#failure = reasonOf(error);
      this.options.onNote(this.#failure);
    }
    this.options.onChange();
  }

  /** @param graceMs  undefined for the pod's own */
  async stop(graceMs = this.options.pod.spec.terminationGraceMs): Promise<void> {
    const { limiter, ledger, agent, uid, onChange } = this.options;
    this.#ending.abort();
    onChange();
    await this.#started;
    await Promise.all(this.#containers.map((container) => container.stop(graceMs)));
    await this.#meshWork;
    if (agent !== undefined && this.#mesh.phase !== "outside") {
      // The agent may be gone for good when everything ends; its pins are removed all the same.
      await agent.remove(uid).catch((error: unknown) => this.options.onNote(reasonOf(error)));
    }
    await removeCgroup(this.#cgroup);
    await limiter.run(() => this.#removeNetwork());
    await rm(this.#filesDir, { recursive: true, force: true });
    await Promise.all(this.#containers.map((container) => container.removeLog()));
    await ledger.remove({ netns: [this.#netns] });
  }

  /** The command line that runs a command in a container, the first unless it is named. */
  enter(container: string | undefined, command: readonly string[]): readonly string[] | undefined {
    const found = this.#containers.find(
      ({ name }) => container === undefined || name === container,
    );
    return found?.enter(command);
  }

  async #makeNetwork(): Promise<void> {
    const { ledger, number, nodeNumber, addresses, names, pod } = this.options;
    await ledger.add({ netns: [this.#netns] });
    await addNetns([this.#netns]);
    const uplink = podUplink(nodeNumber, number, this.#netns, addresses);
    await ipBatch(uplink, names.netns(pod.node));
    await ipBatch(podLinks(nodeNumber, addresses), this.#netns);
    await createCgroup(this.#cgroup);
    await mkdir(this.#filesDir, { recursive: true });
    const hostname = pod.spec.hostname ?? pod.name;
    await writePodFiles(this.#filesDir, { namespace: pod.namespace, hostname, addresses });
  }

  async #removeNetwork(): Promise<void> {
    const { names, pod, number } = this.options;
    // By itself the link would go when the last descriptor of the namespace does, some time later.
    const uplink = [`link delete ${podLinkName(number)}`];
    if (this.#hasNetwork) await ipBatch(uplink, names.netns(pod.node));
    await deleteNetns([this.#netns]);
  }

  /** Brings the pod in or out of the mesh until it is where it belongs. One at a time. */
  #followMesh(): Promise<void> {
    this.#meshWork ??= this.#bringToMesh()
      .catch((error: unknown) => this.options.onNote(reasonOf(error)))
      .finally(() => {
        this.#meshWork = undefined;
      });
    return this.#meshWork;
  }

  async #bringToMesh(): Promise<void> {
    const { agent } = this.options;
    if (agent === undefined) return;
    for (let retryMs = RETRY_MIN_MS; !this.terminating; ) {
      const isEnrolled = this.#mesh.phase === "enrolled";
      if (this.#wantsMesh ? isEnrolled : this.#mesh.phase === "outside") return;
      try {
        await (this.#wantsMesh ? this.#enrol(agent) : this.#leave(agent));
        retryMs = RETRY_MIN_MS;
      } catch (error) {
        this.#setMesh({
          phase: this.#wantsMesh ? "enrolling" : "leaving",
          reason: reasonOf(error),
        });
        const signal = AbortSignal.any([this.#ending.signal, this.#retry.signal]);
        await delay(retryMs, undefined, { signal }).catch(() => undefined);
        retryMs = Math.min(RETRY_MAX_MS, retryMs * 2);
      }
    }
  }

  async #enrol(agent: AgentClient): Promise<void> {
    const { uid, pod, addresses } = this.options;
    if (this.#mesh.phase !== "enrolling") this.#setMesh({ phase: "enrolling", reason: "" });
    await agent.enrol({
      uid,
      name: pod.name,
      namespace: pod.namespace,
      serviceAccount: pod.spec.serviceAccount,
      addresses: [addresses.ipv4, addresses.ipv6],
      netns: netnsPath(this.#netns),
      probePorts: probePorts(pod.spec.containers),
      ...strictEgress(this.#annotations, this.#cgroup),
      dns: {
        ...resolverSettings(pod.namespace),
        capture: pod.annotations[DNS_CAPTURE] !== "false",
      },
    });
    this.#setMesh({ phase: "enrolled" });
  }

  /** First the others are told, then the agent. */
  async #leave(agent: AgentClient): Promise<void> {
    this.#setMesh({ phase: "leaving", reason: "" });
    await delay(LEAVE_DELAY_MS, undefined, { signal: this.#ending.signal });
    await agent.remove(this.options.uid);
    this.#setMesh({ phase: "outside" });
  }

  #setMesh(mesh: MeshState): void {
    this.#mesh = mesh;
    this.options.onChange();
  }

  #containerOf(spec: NewPod["spec"]["containers"][number]): ContainerLoop {
    const { pod, addresses, baseEnvironment, names, onChange, onNote } = this.options;
    const hostname = pod.spec.hostname ?? pod.name;
    const base = { ...baseEnvironment, HOSTNAME: hostname };
    const environment = environmentOf(spec, this.#fields(), base);
    return new ContainerLoop({
      spec,
      restartPolicy: pod.spec.restartPolicy,
      terminationGraceMs: pod.spec.terminationGraceMs,
      place: {
        cgroup: join(this.#cgroup, spec.name),
        netnsPath: netnsPath(this.#netns),
        filesDir: this.#filesDir,
        hostname,
      },
      ip: addresses.ipv4,
      // As the kubelet's, once the agent knows the pod's probes. Before, and outside of the mesh,
      // the runtime connects from inside: unlike the kubelet it need not wait for either.
      prober: () => (this.#mesh.phase === "enrolled" ? this.options.prober : undefined),
      program: {
        command: commandOf(spec, environment),
        workingDir: spec.workingDir,
        environment,
      },
      logPath: names.containerLog(pod, spec.name),
      onChange,
      onNote: (note) => {
        this.#lastNote = note;
        onNote(note);
      },
    });
  }

  #fields(): PodFields {
    const { uid, pod, addresses, nodeNumber } = this.options;
    return {
      "metadata.name": pod.name,
      "metadata.namespace": pod.namespace,
      "metadata.uid": uid,
      "spec.nodeName": pod.node,
      "spec.serviceAccountName": pod.spec.serviceAccount,
      "status.hostIP": nodeAddress(nodeNumber).ipv4,
      "status.podIP": addresses.ipv4,
      "status.podIPs": `${addresses.ipv4},${addresses.ipv6}`,
    };
  }
}
