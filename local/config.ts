import { dirname, join, resolve } from "node:path";
import { EnvReader, parseBoolean, parseIntegerIn, parseNonEmpty } from "#core/env.ts";
import { NODES_MAX } from "./addresses.ts";
import { checkRuntimeName } from "./names.ts";

type Environment = Readonly<Record<string, string>>;

/** Everything the runtime is told from outside. Read once, in main.ts, and passed down. */
export interface LocalConfig {
  readonly name: string;
  /** Of all runtimes on this host. */
  readonly root: string;
  readonly nodes: number;
  /** Without it there is no control server and no agent: pods talk as they are. */
  readonly mesh: boolean;
  /** Files and folders with objects, watched. Absolute. */
  readonly paths: readonly string[];
  readonly pinRoot: string;
  /** Where its own output goes while it has no terminal; removed at the end. */
  readonly logPath: string | undefined;
  /** What the runtime's own processes start with. */
  readonly ownEnvironment: Environment;
  readonly agentEnvironment: Environment;
  readonly controlEnvironment: Environment;
  /** What containers start with. */
  readonly podEnvironment: Environment;
}

/** Settings of agent and control that may be given to the runtime itself. */
const PASSED_ON = ["LOG_FORMAT", "RUST_LOG", "AQUIFER_LOG_LEVEL"] as const;
const PATH_FALLBACK = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
export const LOCAL_ROOT = "/run/aquifer/local";

/** @throws MeshError `SETTINGS_INVALID`, which lists every mistake */
export function readConfig(env: NodeJS.ProcessEnv, cwd: string): LocalConfig {
  const read = new EnvReader(env);
  const path = env["PATH"] ?? PATH_FALLBACK;
  const passedOn = PASSED_ON.flatMap((name) => {
    const value = env[name];
    return value === undefined ? [] : [[name, value] as const];
  });
  const home = env["HOME"] ?? "/";
  const config: LocalConfig = {
    name: read.optional("AQUIFER_LOCAL_NAME", "default", checkRuntimeName),
    root: resolve(cwd, read.optional("AQUIFER_LOCAL_ROOT", LOCAL_ROOT, parseNonEmpty)),
    nodes: read.optional("AQUIFER_LOCAL_NODES", 2, (text) => parseIntegerIn(text, 1, NODES_MAX)),
    mesh: read.optional("AQUIFER_LOCAL_MESH", true, parseBoolean),
    paths: read.optional("AQUIFER_LOCAL_PATHS", [], (text) => {
      return text.split("\n").map((each) => resolve(cwd, each));
    }),
    pinRoot: read.optional("AQUIFER_LOCAL_PIN_ROOT", "/sys/fs/bpf/aquifer/v1", parseNonEmpty),
    logPath: read.optional("AQUIFER_LOCAL_LOG", undefined, parseNonEmpty),
    ownEnvironment: { PATH: path, HOME: home, ...Object.fromEntries(passedOn) },
    agentEnvironment: read.optional("AQUIFER_LOCAL_AGENT_ENV", {}, parseVariables),
    controlEnvironment: read.optional("AQUIFER_LOCAL_CONTROL_ENV", {}, parseVariables),
    // Programs of pods find the Node that the mesh itself runs on, before any other.
    podEnvironment: { PATH: `${dirname(process.execPath)}:${path}`, HOME: home },
  };
  const socket = join(config.root ?? "", config.name ?? "", "nodes", `n${NODES_MAX}`, "agent.sock");
  if (Buffer.byteLength(socket) > SOCKET_PATH_BYTES_MAX) {
    read.complain(`AQUIFER_LOCAL_ROOT is too long: "${socket}" cannot be the path of a socket`);
  }
  read.finish();
  return config;
}

/** `sun_path` of unix(7), less the byte that ends it. */
const SOCKET_PATH_BYTES_MAX = 107;

/** `NAME=VALUE`, one a line. */
function parseVariables(text: string): Environment {
  return Object.fromEntries(
    text.split("\n").map((line) => {
      const [, name, value] = /^([A-Za-z_][A-Za-z0-9_]*)=(.*)$/.exec(line) ?? [];
      if (name === undefined || value === undefined) {
        throw new SyntaxError(`expected NAME=VALUE, not "${line}"`);
      }
      return [name, value];
    }),
  );
}
