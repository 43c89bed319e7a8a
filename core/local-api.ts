/**
 * What the local runtime says over its API (HTTP and JSON on a unix socket), to the command line
 * and to tests.
 */

export interface LocalStatus {
  readonly name: string;
  readonly pid: number;
  /** Every object of the first reading has been seen to. */
  readonly settled: boolean;
  readonly mesh: boolean;
  readonly stateDir: string;
  readonly fabric: { readonly netns: string };
  /** null without a mesh. */
  readonly control: ControlStatus | null;
  readonly nodes: readonly NodeStatus[];
  readonly deployments: readonly DeploymentStatus[];
  readonly pods: readonly PodStatus[];
  readonly services: readonly ServiceStatus[];
  readonly problems: readonly LocalProblem[];
}

export interface ControlStatus {
  readonly pid: number | null;
  readonly ready: boolean;
  readonly restarts: number;
  readonly addresses: readonly string[];
  readonly log: string;
}

export interface NodeStatus {
  readonly name: string;
  readonly netns: string;
  readonly cgroup: string;
  readonly addresses: readonly string[];
  /** null without a mesh. */
  readonly agent: AgentStatus | null;
}

export interface AgentStatus {
  readonly pid: number | null;
  readonly up: boolean;
  readonly restarts: number;
  /** Processes that another agent has taken over from: they end with their last connection. */
  readonly draining: readonly number[];
  readonly socket: string;
  readonly log: string;
}

/** Which process took over from which. */
export interface AgentUpgrade {
  readonly node: string;
  readonly from: number | null;
  readonly to: number;
}

export interface DeploymentStatus {
  readonly namespace: string;
  readonly name: string;
  readonly replicas: number;
  readonly ready: number;
  /** Made from the template as it is now. */
  readonly current: number;
}

export interface PodStatus {
  readonly namespace: string;
  readonly name: string;
  readonly uid: string;
  readonly node: string;
  readonly serviceAccount: string;
  readonly phase: "Pending" | "Running" | "Succeeded" | "Failed";
  readonly ready: boolean;
  readonly terminating: boolean;
  /** IPv4, then IPv6. */
  readonly addresses: readonly string[];
  readonly netns: string;
  readonly cgroup: string;
  readonly mesh: "outside" | "enrolling" | "enrolled" | "leaving";
  readonly labels: Readonly<Record<string, string>>;
  readonly createdAt: string;
  readonly containers: readonly ContainerStatus[];
  /** What last went wrong, or "". */
  readonly message: string;
}

export interface ContainerStatus {
  readonly name: string;
  readonly phase: "waiting" | "running" | "stopping" | "ended";
  readonly ready: boolean;
  readonly restarts: number;
  readonly pid: number | null;
  readonly exitCode: number | null;
  readonly log: string;
}

export interface ServiceStatus {
  readonly namespace: string;
  readonly name: string;
  /** Virtual addresses; none for a headless service. */
  readonly addresses: readonly string[];
  readonly ports: readonly {
    readonly name: string;
    readonly port: number;
    readonly protocol: string;
    /** `10.244.1.2:8080`, of pods that are ready. */
    readonly endpoints: readonly string[];
  }[];
}

/** What is wrong with something the user wrote, and where. */
export interface LocalProblem {
  /** Absolute; "" where the problem is in no file. */
  readonly file: string;
  /** From 1; 0 where it is in no line. */
  readonly line: number;
  /** `Deployment shop/cart`, or "" where the document does not say what it is. */
  readonly object: string;
  /** `spec.template.spec.containers[0].command`, "" for the object as a whole. */
  readonly field: string;
  readonly reason: string;
  /** A note is about something that is taken, yet has no effect here. */
  readonly severity: "problem" | "note";
  /** An earlier version of the object is still in force. */
  readonly lastGood: boolean;
}

/**
 * `shop/cart.yaml:12: Deployment shop/cart: spec.replicas: expected an integer`.
 *
 * @param shown  how the file's path is written
 */
export function formatProblem(problem: LocalProblem, shown = (file: string) => file): string {
  const { file, line, object, field, reason, severity, lastGood } = problem;
  const where = file === "" || line === 0 ? shown(file) : `${shown(file)}:${line}`;
  const what = severity === "note" ? `note: ${reason}` : reason;
  const text = [where, object, field, what].filter((part) => part !== "").join(": ");
  return lastGood ? `${text} (the version before it stays in force)` : text;
}

export interface LocalChange {
  /** `Deployment shop/cart`. */
  readonly object: string;
  readonly action: "created" | "configured" | "unchanged" | "deleted";
}

export interface ApplyAnswer {
  readonly changes: readonly LocalChange[];
  readonly problems: readonly LocalProblem[];
}

export interface ExecAnswer {
  /** Puts itself into the pod, and then becomes the command. */
  readonly command: readonly string[];
}
