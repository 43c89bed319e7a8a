/** What whoever makes a pod says of the probes it gets, and of what it may send. */

/** What becomes of packets that a pod sends past the capture. */
export interface PodStrictEgress {
  readonly mode: "report" | "enforce";
  /** The pod's own, in cgroup2, which is there before the pod is enrolled. */
  readonly cgroup: string;
}

/** Containers of a pod have three probes each; nobody has this many. */
const PROBE_PORTS_MAX = 64;
const KNOWN_STRICT_FIELDS = ["mode", "cgroup"];

type Refuse = (reason: string) => never;

/** @param refuse  is told why the value cannot be */
export function parseProbePorts(value: unknown, refuse: Refuse): readonly number[] {
  if (!Array.isArray(value)) return refuse('"probePorts" is no list of ports');
  if (value.length > PROBE_PORTS_MAX) {
    return refuse(`"probePorts" has more than ${PROBE_PORTS_MAX} entries`);
  }
  return value.map((port: unknown) => {
    if (typeof port === "number" && Number.isInteger(port) && port >= 1 && port <= 65_535) {
      return port;
    }
    return refuse(`"probePorts" holds ${JSON.stringify(port)}, which is no port`);
  });
}

/** @param refuse  is told why the value cannot be */
export function parseStrictEgress(value: unknown, refuse: Refuse): PodStrictEgress {
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    return refuse('"strictEgress" is no object');
  }
  const fields: Readonly<Record<string, unknown>> = { ...value };
  const unknownField = Object.keys(fields).find((field) => !KNOWN_STRICT_FIELDS.includes(field));
  if (unknownField !== undefined) return refuse(`unknown field "strictEgress.${unknownField}"`);
  const { mode, cgroup } = fields;
  if (mode !== "report" && mode !== "enforce") {
    return refuse(`"strictEgress.mode" is ${JSON.stringify(mode)}: expected report or enforce`);
  }
  if (typeof cgroup !== "string" || !cgroup.startsWith("/")) {
    return refuse('"strictEgress.cgroup" is not an absolute path');
  }
  return { mode, cgroup };
}
