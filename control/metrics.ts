import { Counter, collectDefaultMetrics, Gauge, Registry } from "prom-client";
import type { Snapshot } from "#core/snapshot.ts";
import type { ServeEvent } from "./distribute/events.ts";
import type { MeshObjects } from "./resources/register.ts";
import type { Problem, ProblemEffect } from "./source/problem.ts";

const ADDRESS_TYPE_URL = "type.googleapis.com/istio.workload.Address";
const EFFECTS: readonly ProblemEffect[] = ["lastGood", "partly", "failsClosed", "ignored"];

/** Prometheus' own linter objects to these defaults; nobody has missed them yet. */
const GAUGES_NAMED_AS_COUNTERS = [
  "nodejs_active_handles_total",
  "nodejs_active_requests_total",
  "nodejs_active_resources_total",
];

/** What is counted about control, for `/metrics`. */
export class ControlMetrics {
  readonly #registry = new Registry();
  readonly #objects = this.#gauge("aquifer_control_objects", "Objects in force, by kind.", "kind");
  readonly #problems = this.#gauge(
    "aquifer_control_problems",
    "Problems with objects, by what is in force in place of what was asked for.",
    "effect",
  );
  readonly #snapshot = this.#gauge(
    "aquifer_control_snapshot_resources",
    "What every node is told about, by kind.",
    "kind",
  );
  readonly #nodes = this.#gauge(
    "aquifer_control_connected_nodes",
    "Nodes with a discovery stream.",
  );
  readonly #pushes = this.#counter("aquifer_control_pushes_total", "Responses to nodes.", "type");
  readonly #pushedBytes = this.#counter(
    "aquifer_control_pushed_bytes_total",
    "Size of responses to nodes.",
    "type",
  );
  readonly #pushedResources = this.#counter(
    "aquifer_control_pushed_resources_total",
    "Resources in responses to nodes.",
    "type",
    "change",
  );
  readonly #rejections = this.#counter(
    "aquifer_control_rejections_total",
    "Responses that a node could not take over in full.",
    "type",
  );
  readonly #notEncoded = this.#counter(
    "aquifer_control_not_encoded_total",
    "Resources that could not be put on the wire, and are missing at the nodes.",
    "type",
  );
  readonly #callersRefused = this.#counter(
    "aquifer_control_callers_refused_total",
    "Callers without a valid token, or that claimed to be another node.",
  );
  readonly #certificates = this.#counter(
    "aquifer_control_certificates_total",
    "Requests for certificates, by outcome.",
    "outcome",
  );
  readonly #streams = new Map<string, number>();

  constructor(version: string) {
    collectDefaultMetrics({ register: this.#registry });
    for (const name of GAUGES_NAMED_AS_COUNTERS) this.#registry.removeSingleMetric(name);
    // Istio's dashboards look for control by this name.
    const build = this.#gauge("istio_build", "Version of this program.", "component", "tag");
    build.set({ component: "pilot", tag: version }, 1);
    this.#nodes.set(0);
    this.countProblems([]);
  }

  get contentType(): string {
    return this.#registry.contentType;
  }

  async text(): Promise<string> {
    return this.#registry.metrics();
  }

  countObjects(objects: MeshObjects): void {
    for (const [kind, shelf] of Object.entries(objects)) this.#objects.set({ kind }, shelf.size);
  }

  countProblems(problems: readonly Problem[]): void {
    for (const effect of EFFECTS) {
      const count = problems.filter((problem) => problem.effect === effect).length;
      this.#problems.set({ effect }, count);
    }
  }

  countSnapshot({ workloads, services, policies }: Snapshot): void {
    this.#snapshot.set({ kind: "workload" }, workloads.size);
    this.#snapshot.set({ kind: "service" }, services.size);
    this.#snapshot.set({ kind: "policy" }, policies.size);
  }

  countEvent(event: ServeEvent): void {
    switch (event.kind) {
      case "subscribed":
        // Every stream asks for addresses once.
        if (event.typeUrl === ADDRESS_TYPE_URL) this.#countStream(event.node, 1);
        return;
      case "streamEnded":
        this.#countStream(event.node, -1);
        return;
      case "pushed": {
        const type = shortName(event.typeUrl);
        this.#pushes.inc({ type });
        this.#pushedBytes.inc({ type }, event.bytes);
        this.#pushedResources.inc({ type, change: "changed" }, event.changed);
        this.#pushedResources.inc({ type, change: "removed" }, event.removed);
        return;
      }
      case "rejected":
        this.#rejections.inc({ type: shortName(event.typeUrl) });
        return;
      case "notEncoded":
        this.#notEncoded.inc({ type: shortName(event.typeUrl) });
        return;
      case "callerRefused":
        this.#callersRefused.inc();
        return;
      case "certificateIssued":
        this.#certificates.inc({ outcome: "issued" });
        return;
      case "certificateRefused":
        this.#certificates.inc({ outcome: "refused" });
        return;
      case "serverCertificateRenewed":
      case "serverCertificateNotRenewed":
        return;
    }
  }

  #countStream(node: string, change: 1 | -1): void {
    const count = (this.#streams.get(node) ?? 0) + change;
    if (count > 0) this.#streams.set(node, count);
    else this.#streams.delete(node);
    this.#nodes.set(this.#streams.size);
  }

  #gauge<Label extends string>(name: string, help: string, ...labelNames: Label[]): Gauge<Label> {
    return new Gauge({ name, help, labelNames, registers: [this.#registry] });
  }

  #counter<Label extends string>(
    name: string,
    help: string,
    ...labelNames: Label[]
  ): Counter<Label> {
    return new Counter({ name, help, labelNames, registers: [this.#registry] });
  }
}

/** `Address` of `type.googleapis.com/istio.workload.Address`. */
function shortName(typeUrl: string): string {
  return typeUrl.slice(typeUrl.lastIndexOf(".") + 1);
}
