/**
 * Command lines that put a process where it belongs before it becomes the program: first into its
 * cgroup, so that kernel programs see its first socket; then into the network; then into a mount
 * namespace, where files of the host are covered by the pod's own.
 */
import { POD_FILES } from "./files.ts";

export interface Place {
  readonly cgroup: string;
  /** undefined leaves the process in the host's. */
  readonly netnsPath: string | undefined;
}

export interface PodPlace extends Place {
  /** With the pod's own versions of `POD_FILES`. */
  readonly filesDir: string;
  readonly hostname: string;
}

export interface Program {
  readonly command: readonly string[];
  readonly workingDir: string;
  /** All of it: nothing is inherited. */
  readonly environment: Readonly<Record<string, string>>;
}

/** $1: cgroup.procs; then the command. `0` is the writer itself (cgroup-v2.rst). */
const JOIN = 'echo 0 > "$1" && shift && exec "$@"';

const COVER = [
  "set -e",
  'echo "$2" > /proc/sys/kernel/hostname',
  ...Object.entries(POD_FILES).map(([name, path]) => {
    return `if [ -e "$1/${name}" ]; then mount --bind "$1/${name}" ${path}; fi`;
  }),
  'cd "$3"',
  "shift 3",
  'exec "$@"',
].join("\n");

/** A process of the runtime itself, as an agent is. */
export function enterPlace(
  { cgroup, netnsPath }: Place,
  command: readonly string[],
): readonly string[] {
  const network = netnsPath === undefined ? [] : ["nsenter", `--net=${netnsPath}`, "--"];
  return ["/bin/sh", "-c", JOIN, "sh", `${cgroup}/cgroup.procs`, ...network, ...command];
}

/** The first process of a container: it gets a mount namespace and a host name of its own. */
export function enterNew(place: PodPlace, program: Program): readonly string[] {
  const { filesDir, hostname } = place;
  const unshare = ["unshare", "--mount", "--uts", "--propagation", "slave", "--"];
  const cover = ["/bin/sh", "-c", COVER, "sh", filesDir, hostname, program.workingDir];
  return enterPlace(place, [...unshare, ...cover, ...become(program)]);
}

/** A process beside the first one of a container, whose mounts it shares. */
export function enterBeside(place: Place, pid: number, program: Program): readonly string[] {
  const { cgroup, netnsPath } = place;
  const network = netnsPath === undefined ? [] : [`--net=${netnsPath}`];
  const target = ["nsenter", ...network, `--target=${pid}`, "--mount", "--uts"];
  return enterPlace({ cgroup, netnsPath: undefined }, [
    ...target,
    `--wd=${program.workingDir}`,
    "--",
    ...become(program),
  ]);
}

/**
 * The environment comes last: a container's PATH is not where nsenter is looked for, and a shell
 * on the way would lose the variables whose names are none to it.
 */
function become({ command, environment }: Program): readonly string[] {
  const variables = Object.entries(environment).map(([name, value]) => `${name}=${value}`);
  return ["env", "-i", ...variables, ...command];
}
