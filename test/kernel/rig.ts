/**
 * An agent that relays nothing: whoever reaches one of its listeners is told in a line how.
 *
 *   <role> peer=<ip:port> local=<ip:port> original=<ip:port or none>
 */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import net from "node:net";
import { join } from "node:path";
import { formatSocketAddress, type IpAddress, parseIp, type SocketAddress } from "#core/ip.ts";
import { BpfMap, fdOf, type Netns } from "#native/kernel/index.ts";
import {
  type CapturedPod,
  type Datapath,
  openDatapath,
  type PodCapture,
} from "../../agent/kernel/datapath.ts";
import type { DirectTables } from "../../agent/kernel/direct-tables.ts";
import type { ListenerSlot } from "../../agent/kernel/layout.ts";
import { Pins } from "../../agent/kernel/pins.ts";
import type { ProbeOptions } from "../../agent/kernel/probe-source.ts";
import type { TestNetwork, TestPod } from "../support/netns.ts";

export const OBJECT_DIR = new URL("../../build/bpf", import.meta.url).pathname;

const LOOPBACK = { 4: parseIp("127.0.0.1"), 6: parseIp("::1") } as const;
const SLOTS = ["in4", "in6", "out4", "out6", "hbone4", "hbone6"] as const;

/** Those of every rig of this process. */
const pinDirs = new Set<string>();

/** A test that ends its process early leaves no capture behind. One that is killed does. */
function removePins(): void {
  for (const dir of pinDirs) {
    if (existsSync(dir)) new Pins(dir).removeAll();
  }
}

export interface EnrolledPod {
  readonly capture: PodCapture;
  readonly servers: readonly net.Server[];
}

export class Rig {
  readonly pinDir: string;
  readonly cgroupRoot: string;
  datapath: Datapath;
  readonly #probes: ProbeOptions | undefined;
  readonly #servers = new Set<net.Server>();
  readonly #sockets = new Set<net.Socket>();

  constructor(network: Pick<TestNetwork, "name" | "cgroupRoot">, probes?: ProbeOptions) {
    this.#probes = probes;
    this.pinDir = `/sys/fs/bpf/${network.name}`;
    this.cgroupRoot = network.cgroupRoot;
    if (pinDirs.size === 0) process.once("exit", removePins);
    pinDirs.add(this.pinDir);
    this.datapath = this.open();
  }

  open(): Datapath {
    const { pinDir, cgroupRoot } = this;
    return openDatapath({ pinDir, cgroupRoot, objectDir: OBJECT_DIR, probes: this.#probes });
  }

  get direct(): DirectTables {
    const { direct } = this.datapath;
    if (direct === undefined) throw new Error("this datapath has no direct path");
    return direct;
  }

  /** Captures the pod and listens in all six slots. */
  async enrol(
    pod: TestPod,
    addresses: readonly IpAddress[] = [pod.ip4, pod.ip6],
    settings: Pick<CapturedPod, "probePorts" | "strictEgress"> = {},
  ) {
    const capture = this.datapath.enrol({
      uid: uidOf(pod),
      netns: pod.netns,
      addresses,
      id: 1,
      ...settings,
    });
    const servers = await this.listen(pod.netns, capture);
    capture.unblock();
    return { capture, servers } satisfies EnrolledPod;
  }

  /** Puts new listeners into all slots of the pod. */
  async listen(netns: Netns, capture: PodCapture): Promise<readonly net.Server[]> {
    const fds: Partial<Record<ListenerSlot, number>> = {};
    const servers: net.Server[] = [];
    for (const slot of SLOTS) {
      const ip = slot.endsWith("4") ? LOOPBACK[4] : LOOPBACK[6];
      const fd = netns.listen({ ip, port: 0, backlog: 4096 });
      fds[slot] = fd;
      servers.push(await this.serve(fd, (socket) => this.#tell(slot, socket)));
    }
    capture.setListeners(fds);
    return servers;
  }

  /** A server on a descriptor, which it owns from then on. */
  async serve(fd: number, onConnection: (socket: net.Socket) => void): Promise<net.Server> {
    const server = net.createServer({ allowHalfOpen: true }, (socket) => {
      // What a client does to its end is not what these tests are about.
      socket.on("error", () => socket.destroy());
      this.#sockets.add(socket);
      socket.on("close", () => this.#sockets.delete(socket));
      onConnection(socket);
    });
    await new Promise<void>((resolve) => server.listen({ fd }, resolve));
    this.#servers.add(server);
    return server;
  }

  handoffEntries(): number {
    return this.#entries("handoff");
  }

  attestEntries(): number {
    return this.#entries("attest");
  }

  /** Removes everything; throws where something stays. */
  async close(): Promise<void> {
    for (const server of this.#servers) server.close();
    for (const socket of this.#sockets) socket.destroy();
    this.datapath.uninstall();
    if (existsSync(this.pinDir)) throw new Error(`"${this.pinDir}" is left`);
  }

  #entries(name: string): number {
    const map = BpfMap.openPinned(join(this.pinDir, "maps", name));
    try {
      return map.keys().length;
    } finally {
      map.close();
    }
  }

  #tell(slot: ListenerSlot, socket: net.Socket): void {
    const fd = fdOf(socket);
    const original = fd === undefined ? undefined : this.datapath.originalDestination(fd);
    const ends = [
      `peer=${endOf(socket.remoteAddress, socket.remotePort)}`,
      `local=${endOf(socket.localAddress, socket.localPort)}`,
      `original=${original === undefined ? "none" : formatSocketAddress(original)}`,
    ];
    socket.resume();
    socket.end(`${slot} ${ends.join(" ")}\n`);
  }
}

/** Starts agent-process.ts in this process's cgroup, and returns when it has enrolled the pod. */
export async function startAgent(network: TestNetwork, pod: TestPod): Promise<ChildProcess> {
  const program = new URL("agent-process.ts", import.meta.url).pathname;
  const { name, cgroupRoot } = network;
  const args = [program, name, cgroupRoot, pod.netnsPath, uidOf(pod), pod.ip4, pod.ip6];
  const agent = spawn(process.execPath, args, { stdio: ["ignore", "pipe", "inherit"] });
  if (agent.stdout) await once(agent.stdout, "data");
  return agent;
}

export function uidOf(pod: TestPod): string {
  return `uid-${pod.netnsName}`;
}

export function endOf(ip: string | undefined, port: number | undefined): string {
  if (ip === undefined || port === undefined) return "gone";
  return formatSocketAddress({ ip: parseIp(ip), port } satisfies SocketAddress);
}

/**
 * What Python programs of the tests start with.
 *
 * `dial(host, port)` connects and prints `name=<getsockname> peer=<getpeername> <what it read>`, or
 * the name of the error.
 */
export const PYTHON = `
import errno, os, socket, struct, sys, threading, time
def end(name): return ("[%s]:%d" if ":" in name[0] else "%s:%d") % name[:2]
def family(host): return socket.AF_INET6 if ":" in host else socket.AF_INET
def text(s):
    data = b""
    while True:
        part = s.recv(4096)
        if not part: return data.decode().strip()
        data += part
def dial(host, port, s=None, prepare=lambda s: None, proto=0):
    s = s or socket.socket(family(host), socket.SOCK_STREAM, proto)
    s.settimeout(10)
    try:
        prepare(s)
        s.connect((host, port))
        print("name=" + end(s.getsockname()), "peer=" + end(s.getpeername()), text(s))
    except OSError as error:
        print(errno.errorcode.get(error.errno, repr(error)))
    return s
def serve(host, port, times=1, prepare=lambda s: None):
    s = socket.socket(family(host), socket.SOCK_STREAM)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    prepare(s)
    s.bind((host, port))
    s.listen(64)
    def loop():
        for _ in range(times):
            c, peer = s.accept()
            c.sendall(("app accept=%s peer=%s\\n" % (end(peer), end(c.getpeername()))).encode())
            c.close()
    threading.Thread(target=loop, daemon=True).start()
    return s
`;
