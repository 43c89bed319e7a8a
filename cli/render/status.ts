import type { LocalStatus, NodeStatus, PodStatus, ServiceStatus } from "#core/local-api.ts";
import { showProblem } from "./problems.ts";
import { formatTable } from "./table.ts";

export function formatStatus(status: LocalStatus, nowMs: number): string {
  const sections = [
    title(status),
    formatTable(["NODE", "ADDRESS", "AGENT", "RESTARTS", "PODS"], nodeRows(status)),
    status.pods.length === 0
      ? "no pods\n"
      : formatTable(
          POD_HEAD,
          status.pods.map((pod) => podRow(pod, nowMs)),
        ),
  ];
  if (status.services.length > 0) {
    const rows = status.services.flatMap(serviceRows);
    sections.push(formatTable(["NAMESPACE", "SERVICE", "ADDRESSES", "PORT", "ENDPOINTS"], rows));
  }
  if (status.problems.length > 0) {
    sections.push(`PROBLEMS\n${status.problems.map((each) => `${showProblem(each)}\n`).join("")}`);
  }
  return sections.join("\n");
}

function title({ name, pid, control }: LocalStatus): string {
  const mesh =
    control === null
      ? "without a mesh"
      : `control is ${control.ready ? "ready" : "not ready"} (${control.addresses[0] ?? ""})`;
  return `${name} (pid ${pid}): ${mesh}\n`;
}

function nodeRows({ nodes, pods }: LocalStatus): readonly (readonly string[])[] {
  return nodes.map(({ name, addresses, agent }) => {
    const count = pods.filter(({ node }) => node === name).length;
    return [name, addresses[0] ?? "", agentState(agent), `${agent?.restarts ?? 0}`, `${count}`];
  });
}

function agentState(agent: NodeStatus["agent"]): string {
  if (agent === null) return "none";
  return agent.up ? "up" : "down";
}

const POD_HEAD = [
  "NAMESPACE",
  "POD",
  "READY",
  "STATUS",
  "RESTARTS",
  "AGE",
  "IP",
  "NODE",
  "MESH",
  "",
];

function podRow(pod: PodStatus, nowMs: number): readonly string[] {
  const { containers } = pod;
  const ready = containers.filter((container) => container.ready).length;
  const restarts = containers.reduce((sum, container) => sum + container.restarts, 0);
  return [
    pod.namespace,
    pod.name,
    `${ready}/${containers.length}`,
    pod.terminating ? "Terminating" : pod.phase,
    String(restarts),
    formatAge(nowMs - Date.parse(pod.createdAt)),
    pod.addresses[0] ?? "",
    pod.node,
    pod.mesh,
    pod.ready ? "" : pod.message,
  ];
}

function serviceRows({ namespace, name, addresses, ports }: ServiceStatus) {
  const at = addresses.length === 0 ? "none" : addresses.join(" ");
  return ports.map(({ port, protocol, endpoints }) => {
    const list = endpoints.length === 0 ? "none" : endpoints.join(" ");
    return [namespace, name, at, `${port}/${protocol}`, list];
  });
}

/** `12s`, `5m` or `3h`: the largest unit alone. */
export function formatAge(ageMs: number): string {
  const seconds = Math.max(0, Math.floor(ageMs / 1_000));
  if (seconds < 120) return `${seconds}s`;
  if (seconds < 7_200) return `${Math.floor(seconds / 60)}m`;
  return `${Math.floor(seconds / 3_600)}h`;
}
