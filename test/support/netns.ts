/**
 * Two pods and the road between them, made of network namespaces:
 *
 *   pod a, 10.1.1.2 and fd00:1::2 ── eth0 ── router ── eth0 ── 10.1.2.2 and fd00:2::2, pod b
 *
 * and a part of the cgroup tree with a group for each pod and one for the test itself, which plays
 * the agent. Nothing of it is in the host's network namespace.
 */
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, rmdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type IpAddress, parseIp } from "#core/ip.ts";
import { type Netns, openNetns } from "#native/kernel/index.ts";
import { cgroup2Root } from "./kernel.ts";

const NETNS_DIR = "/run/netns";
/** Programs of a test are to end by themselves; one that does not is a failure, not a hang. */
const PROGRAM_LIMIT_MS = 30_000;

export interface ProgramResult {
  /** Null where it was killed. */
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

export class TestPod {
  readonly netnsName: string;
  readonly cgroup: string;
  readonly ip4: IpAddress;
  readonly ip6: IpAddress;
  readonly netns: Netns;

  constructor(netnsName: string, cgroup: string, number: number) {
    this.netnsName = netnsName;
    this.cgroup = cgroup;
    this.ip4 = parseIp(`10.1.${number}.2`);
    this.ip6 = parseIp(`fd00:${number}::2`);
    this.netns = openNetns(join(NETNS_DIR, netnsName));
  }

  get netnsPath(): string {
    return join(NETNS_DIR, this.netnsName);
  }

  /** Starts a program that is in the pod's cgroup and network namespace before it runs. */
  start(command: string, args: readonly string[]): ChildProcess {
    // "$0" is the cgroup; the first of "$@" completes --net=, the rest is the program.
    const enter = 'cd / && echo $$ >"$0/cgroup.procs" && exec nsenter --net="$@"';
    return spawn("/bin/sh", ["-c", enter, this.cgroup, this.netnsPath, "--", command, ...args], {
      stdio: ["ignore", "pipe", "pipe"],
    });
  }

  /** Runs a program in the pod to its end. */
  async run(command: string, args: readonly string[]): Promise<ProgramResult> {
    const child = this.start(command, args);
    const limit = setTimeout(() => child.kill("SIGKILL"), PROGRAM_LIMIT_MS);
    const output = { stdout: "", stderr: "" };
    child.stdout?.on("data", (data) => {
      output.stdout += data;
    });
    child.stderr?.on("data", (data) => {
      output.stderr += data;
    });
    const status = await new Promise<number | null>((resolve, reject) => {
      child.on("error", reject);
      child.on("close", resolve);
    });
    clearTimeout(limit);
    return { status, ...output };
  }

  /** Runs a Python program in the pod. @returns what it printed @throws Error unless it exits 0 */
  async python(program: string): Promise<string> {
    const result = await this.run("/usr/bin/python3", ["-c", program]);
    if (result.status !== 0)
      throw new Error(`Python ended with ${result.status}: ${result.stderr}`);
    return result.stdout.trim();
  }
}

/** Made by `makeNetwork()`. */
export interface TestNetwork {
  /** Unique on this host; fit for a directory of pins too. */
  readonly name: string;
  readonly cgroupRoot: string;
  readonly a: TestPod;
  readonly b: TestPod;
  /** Ends every process in the cgroups and removes all of it. Does nothing twice. */
  close(): void;
}

/**
 * Call it in `before`, and `close()` in `after`. Needs root.
 *
 * The test's own process moves into the cgroup, since hooks are chosen by the cgroup that a socket
 * was made in.
 *
 * @param label  of the test file, a few letters
 */
export function makeNetwork(label: string): TestNetwork {
  const name = `aqt-${label}-${process.pid}`;
  const undo: (() => void)[] = [];
  let isClosed = false;
  const close = () => {
    if (isClosed) return;
    isClosed = true;
    process.off("exit", close);
    const errors = undo.reverse().flatMap((step) => {
      try {
        step();
        return [];
      } catch (error) {
        return [error];
      }
    });
    if (errors.length > 0) throw new AggregateError(errors, `Cannot take "${name}" down`);
  };
  // A test that ends its process early must not leave namespaces behind either.
  process.on("exit", close);
  try {
    const cgroupRoot = makeCgroups(name, undo);
    makeNamespaces(name, undo);
    const a = new TestPod(`${name}-a`, join(cgroupRoot, "a"), 1);
    undo.push(() => a.netns.close());
    const b = new TestPod(`${name}-b`, join(cgroupRoot, "b"), 2);
    undo.push(() => b.netns.close());
    return { name, cgroupRoot, a, b, close };
  } catch (error) {
    close();
    throw error;
  }
}

/** Makes `name` with a group each for pods, agent and node; this process moves to the agent's. */
function makeCgroups(name: string, undo: (() => void)[]): string {
  const mount = cgroup2Root();
  const home = join(mount, ownCgroup(), "cgroup.procs");
  const root = join(mount, name);
  mkdirSync(root);
  undo.push(() => rmdirSync(root));
  for (const part of ["a", "b", "agent", "node", "prober"]) {
    const dir = join(root, part);
    mkdirSync(dir);
    undo.push(() => removeCgroup(dir));
  }
  writeFileSync(join(root, "agent", "cgroup.procs"), String(process.pid));
  undo.push(() => writeFileSync(home, String(process.pid)));
  return root;
}

function ownCgroup(): string {
  const line = readFileSync("/proc/self/cgroup", "utf8")
    .split("\n")
    .find((text) => text.startsWith("0::"));
  if (line === undefined) throw new Error("this process is in no cgroup2");
  return line.slice("0::".length);
}

/** What is in it was started by the test. */
function removeCgroup(dir: string): void {
  writeFileSync(join(dir, "cgroup.kill"), "1");
  const deadlineMs = Date.now() + 5_000;
  const isPopulated = () =>
    readFileSync(join(dir, "cgroup.events"), "utf8").includes("populated 1");
  // This also runs while the process exits, when nothing asynchronous does any more.
  while (isPopulated() && Date.now() < deadlineMs) pauseMs(5);
  rmdirSync(dir);
}

function pauseMs(ms: number): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);
}

function makeNamespaces(name: string, undo: (() => void)[]): void {
  for (const part of ["router", "a", "b"]) {
    ip(["netns", "add", `${name}-${part}`]);
    undo.push(() => {
      if (existsSync(join(NETNS_DIR, `${name}-${part}`))) ip(["netns", "del", `${name}-${part}`]);
    });
    inNetns(`${name}-${part}`, ["link set lo up"]);
    // Link-local addresses would otherwise be probed for a second or two before IPv6 works.
    sysctl(`${name}-${part}`, "net.ipv6.conf.default.accept_dad=0");
  }
  const router = `${name}-router`;
  for (const [index, part] of ["a", "b"].entries()) {
    const number = index + 1;
    const pod = `${name}-${part}`;
    inNetns(router, [`link add to-${part} type veth peer name eth0 netns ${pod}`]);
    inNetns(router, [
      `addr add 10.1.${number}.1/24 dev to-${part}`,
      `addr add fd00:${number}::1/64 dev to-${part} nodad`,
      `link set to-${part} up`,
    ]);
    inNetns(pod, [
      `addr add 10.1.${number}.2/24 dev eth0`,
      `addr add fd00:${number}::2/64 dev eth0 nodad`,
      "link set eth0 up",
      `route add default via 10.1.${number}.1`,
      `-6 route add default via fd00:${number}::1`,
    ]);
  }
  sysctl(router, "net.ipv4.ip_forward=1");
  sysctl(router, "net.ipv6.conf.all.forwarding=1");
}

function sysctl(netns: string, setting: string): void {
  ip(["netns", "exec", netns, "sysctl", "-qw", setting]);
}

function inNetns(name: string, commands: readonly string[]): void {
  for (const command of commands) ip(["-n", name, ...command.split(" ")]);
}

function ip(args: readonly string[]): void {
  execFileSync("ip", args, { stdio: ["ignore", "ignore", "inherit"] });
}
