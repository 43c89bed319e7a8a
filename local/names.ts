/** What everything is called that a runtime makes on the host. */
import { createHash } from "node:crypto";
import { join } from "node:path";

const RUNTIME_NAME = /^[a-z][a-z0-9]*(-[a-z0-9]+)*$/;
const RUNTIME_NAME_MAX = 24;
/** A part of this form would make the names of two runtimes run into each other. */
const RESERVED_PART = /^(fabric|n\d+)$/;

/** @throws RangeError with the reason where no runtime can have this name */
export function checkRuntimeName(name: string): string {
  if (!RUNTIME_NAME.test(name) || name.length > RUNTIME_NAME_MAX) {
    throw new RangeError(
      `expected up to ${RUNTIME_NAME_MAX} lower case letters, digits and single hyphens`,
    );
  }
  const reserved = name.split("-").find((part) => RESERVED_PART.test(part));
  if (reserved !== undefined) throw new RangeError(`"${reserved}" is the name of a part of it`);
  return name;
}

export const FABRIC = "fabric";

export function nodeName(number: number): string {
  return `n${number}`;
}

/** A file name may have 255 bytes, and namespace and name of a pod together more. */
const NETNS_NAME_MAX = 200;

export interface PodName {
  readonly namespace: string;
  readonly name: string;
}

export class Names {
  readonly runtime: string;
  readonly stateDir: string;
  readonly #cgroupMount: string;
  readonly #pinRoot: string;

  constructor(options: {
    readonly runtime: string;
    readonly root: string;
    readonly cgroupMount: string;
    readonly pinRoot: string;
  }) {
    this.runtime = options.runtime;
    this.stateDir = join(options.root, options.runtime);
    this.#cgroupMount = options.cgroupMount;
    this.#pinRoot = options.pinRoot;
  }

  /** Of the fabric, or of a node. */
  netns(place: string): string {
    return `aq-${this.runtime}-${place}`;
  }

  podNetns(node: string, pod: PodName): string {
    return shorten(`${this.netns(node)}-${pod.namespace}.${pod.name}`, NETNS_NAME_MAX);
  }

  /** Whether a network namespace is one of this runtime, by its name. */
  isOwnNetns(netns: string): boolean {
    const prefix = `aq-${this.runtime}-`;
    const [place = ""] = netns.slice(prefix.length).split("-");
    return netns.startsWith(prefix) && RESERVED_PART.test(place);
  }

  get cgroup(): string {
    return join(this.#cgroupMount, `aquifer-${this.runtime}`);
  }

  /** Of the fabric, or of a node: an agent's programs see what is below its node's. */
  placeCgroup(place: string): string {
    return join(this.cgroup, place);
  }

  podCgroup(node: string, pod: PodName): string {
    const name = shorten(`${pod.namespace}.${pod.name}`, NETNS_NAME_MAX);
    return join(this.placeCgroup(node), "pods", name);
  }

  /** Has no dot in it: bpffs does not allow one. */
  pinDir(node: string): string {
    return join(this.#pinRoot, `${this.runtime}-${node}`);
  }

  /** Whether a folder of pins is one of this runtime, by its name. */
  isOwnPinDir(name: string): boolean {
    const prefix = `${this.runtime}-`;
    return name.startsWith(prefix) && RESERVED_PART.test(name.slice(prefix.length));
  }

  get pinRoot(): string {
    return this.#pinRoot;
  }

  get objectsDir(): string {
    return join(this.stateDir, "objects");
  }

  get controlDir(): string {
    return join(this.stateDir, "control");
  }

  get logsDir(): string {
    return join(this.stateDir, "logs");
  }

  get apiSocket(): string {
    return join(this.stateDir, "api.sock");
  }

  get ledger(): string {
    return join(this.stateDir, "runtime.json");
  }

  nodeDir(node: string): string {
    return join(this.stateDir, "nodes", node);
  }

  agentSocket(node: string): string {
    return join(this.nodeDir(node), "agent.sock");
  }

  podDir(pod: PodName): string {
    return join(this.stateDir, "pods", shorten(`${pod.namespace}.${pod.name}`, NETNS_NAME_MAX));
  }

  containerLog(pod: PodName, container: string): string {
    const name = shorten(`${pod.namespace}.${pod.name}.${container}`, NETNS_NAME_MAX);
    return join(this.logsDir, `${name}.log`);
  }
}

function shorten(name: string, lengthMax: number): string {
  if (name.length <= lengthMax) return name;
  const digest = createHash("sha256").update(name).digest("hex").slice(0, 16);
  return `${name.slice(0, lengthMax - digest.length - 1)}-${digest}`;
}
