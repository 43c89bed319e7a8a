/** One attempt of a probe, made from inside the pod or from where this process is. */
import { spawn } from "node:child_process";
import { request } from "node:http";
import { Socket } from "node:net";
import { connect as connectTls } from "node:tls";
import { type IpAddress, isIpv4, parseIp } from "#core/ip.ts";
import type { ProbeHandler, ProbeSpec } from "../object/object.ts";

export interface ProbeTarget {
  /** Undefined for this process's own. */
  readonly netnsPath: string | undefined;
  readonly ip: IpAddress;
  /** The command line that runs a command inside the container. */
  readonly enter: (command: readonly string[]) => readonly string[];
}

export type ProbeOutcome = { readonly ok: true } | { readonly ok: false; readonly reason: string };

/** Never throws: whatever goes wrong is a failed attempt, with its reason. */
export async function attempt(spec: ProbeSpec, target: ProbeTarget): Promise<ProbeOutcome> {
  const signal = AbortSignal.timeout(spec.timeoutMs);
  try {
    await attemptHandler(spec.handler, target, signal);
    return { ok: true };
  } catch (error) {
    if (signal.aborted) return { ok: false, reason: `no answer within ${spec.timeoutMs} ms` };
    return { ok: false, reason: error instanceof Error ? error.message : String(error) };
  }
}

async function attemptHandler(
  handler: ProbeHandler,
  target: ProbeTarget,
  signal: AbortSignal,
): Promise<void> {
  switch (handler.kind) {
    case "exec":
      return runInside(target.enter(handler.command), signal);
    case "httpGet":
      return getInside(handler, target, signal);
    case "tcpSocket": {
      const socket = await connectInside(target, handler.host, handler.port, signal);
      socket.destroy();
      return;
    }
  }
}

async function runInside(command: readonly string[], signal: AbortSignal): Promise<void> {
  const [file = "", ...args] = command;
  const child = spawn(file, args, { stdio: "ignore", detached: true });
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  // The whole group: what the command started would outlive it.
  const kill = () => {
    if (child.pid !== undefined) process.kill(-child.pid, "SIGKILL");
  };
  signal.addEventListener("abort", kill, { once: true });
  child.once("error", reject);
  child.once("exit", (code, name) => {
    signal.removeEventListener("abort", kill);
    if (code === 0) resolve();
    else reject(new Error(`the command ended with ${code ?? name}`));
  });
  await promise;
}

type HttpHandler = ProbeHandler & { readonly kind: "httpGet" };

async function getInside(
  handler: HttpHandler,
  target: ProbeTarget,
  signal: AbortSignal,
): Promise<void> {
  const socket = await connectInside(target, handler.host, handler.port, signal);
  try {
    const status = await getStatus(handler, target.ip, socket, signal);
    if (status < 200 || status >= 400) throw new Error(`HTTP status ${status}`);
  } finally {
    socket.destroy();
  }
}

function getStatus(
  { path, port, host, scheme, headers }: HttpHandler,
  ip: IpAddress,
  socket: Socket,
  signal: AbortSignal,
): Promise<number> {
  const { promise, resolve, reject } = Promise.withResolvers<number>();
  const options = {
    path,
    signal,
    // As the kubelet: the probe asks whether it answers, not who it is.
    createConnection: () => {
      return scheme === "HTTP" ? socket : connectTls({ socket, rejectUnauthorized: false });
    },
    headers: {
      host: `${host ?? (isIpv4(ip) ? ip : `[${ip}]`)}:${port}`,
      "user-agent": "aquifer-probe",
      accept: "*/*",
      connection: "close",
      ...Object.fromEntries(headers),
    },
  };
  const sent = request(options);
  sent.once("response", (response) => {
    response.resume();
    resolve(response.statusCode ?? 0);
  });
  sent.once("error", reject);
  sent.end();
  return promise;
}

/**
 * From the pod's own namespace to its own address: such a connection is never captured. From the
 * node's: the agent of an enrolled pod lets it in, see docs/local.md.
 */
async function connectInside(
  { netnsPath, ip }: ProbeTarget,
  host: string | undefined,
  port: number,
  signal: AbortSignal,
): Promise<Socket> {
  const address = host === undefined ? ip : parseIp(host);
  const socket = netnsPath === undefined ? new Socket() : await openInside(netnsPath, address);
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const abort = () => socket.destroy(new Error("timed out"));
  signal.addEventListener("abort", abort, { once: true });
  socket.once("error", reject);
  socket.once("close", () => reject(new Error("the connection was closed")));
  socket.once("connect", resolve);
  socket.connect({ host: address, port });
  try {
    await promise;
    return socket;
  } finally {
    signal.removeEventListener("abort", abort);
    // Later errors come through the request; nobody may be left without a listener.
    socket.on("error", () => undefined);
  }
}

async function openInside(netnsPath: string, address: IpAddress): Promise<Socket> {
  // Loaded on the first probe: without probes the runtime needs no native code.
  const { openNetns } = await import("#native/kernel/index.ts");
  const netns = openNetns(netnsPath);
  try {
    return new Socket({ fd: netns.openSocket({ family: isIpv4(address) ? "ipv4" : "ipv6" }) });
  } finally {
    netns.close();
  }
}
