/**
 * An agent without kernel: pods are loopback addresses, and whatever the capture would find out is
 * said by the test. Engine, TLS, certificates, policy and log are the real ones.
 */
import assert from "node:assert/strict";
import { parseIp, type SocketAddress } from "#core/ip.ts";
import type { MeshUpdate } from "#core/service/mesh-index.ts";
import type { Workload } from "#core/service/workload.ts";
import type { SpiffeId } from "#core/spiffe-id.ts";
import type { IssuedCertificate } from "#wire/ca/client.ts";
import type { Listener, PlainConnection, TunnelEngine } from "#wire/hbone/engine.ts";
import { createHboneEngine } from "#wire/hbone/node-engine.ts";
import { CertificateStore } from "../../agent/identity/certificate-store.ts";
import { Loggers, parseLogLevels } from "../../agent/log.ts";
import { openPodProxy, type PodNetns, type PodProxy } from "../../agent/proxy/pod-proxy.ts";
import { createProxyRuntime, type ProxyRuntime } from "../../agent/proxy/runtime.ts";
import { SYSTEM_TIMERS } from "../../agent/timers.ts";
import type { PodUid } from "../../agent/workload/pod.ts";
import type { TestAuthority } from "./certificates.ts";
import { boundSocket } from "./sockets.ts";

export interface LogLine extends Readonly<Record<string, unknown>> {
  readonly target: string;
  readonly level: string;
  readonly message: string;
}

export interface LoopbackPod {
  readonly proxy: PodProxy;
  /** Where the pod's captured connections arrive. */
  readonly outbound: SocketAddress;
  /** Where plaintext from outside the mesh arrives. */
  readonly inbound: SocketAddress;
  /** What the next captured connection was going to; undefined for one that was not captured. */
  destination: SocketAddress | undefined;
  /** What the next plaintext connection was going to. */
  dialled: SocketAddress | undefined;
  /** Clients that the application was told of, in the order of its connections. */
  readonly shownClients: SocketAddress[];
}

export class LoopbackAgent {
  readonly lines: LogLine[] = [];
  readonly runtime: ProxyRuntime;
  readonly certificates: CertificateStore;
  readonly #pods: LoopbackPod[] = [];
  #nextSerial = 1;

  constructor(authority: TestAuthority) {
    const loggers = new Loggers(
      { format: "json", levels: parseLogLevels("debug") },
      { write: (line: string) => this.lines.push(JSON.parse(line) as LogLine) },
    );
    const keys = new Map<SpiffeId, string>();
    this.certificates = new CertificateStore({
      // The authority of the tests makes keys itself.
      createCsr: async (identity) => {
        const { certificatePem, privateKeyPem } = await authority.issue({ uris: [identity] });
        keys.set(identity, certificatePem);
        return { keyPem: privateKeyPem, csrPem: "" };
      },
      request: async ({ identity }): Promise<IssuedCertificate> => ({
        identity,
        chainPem: [keys.get(identity) ?? ""],
        rootsPem: [authority.rootPem],
        validity: { notBeforeMs: Date.now() - 3_600_000, notAfterMs: Date.now() + 3_600_000 },
        serialNumber: String(this.#nextSerial++),
      }),
      timers: SYSTEM_TIMERS,
      random: Math.random,
      ttlMs: 3_600_000,
      log: loggers.for("identity"),
    });
    this.runtime = createProxyRuntime({
      network: "",
      clusterId: "Kubernetes",
      certificates: this.certificates,
      timers: SYSTEM_TIMERS,
      random: Math.random,
      loggers,
    });
  }

  apply(update: MeshUpdate): void {
    this.runtime.context.state.apply(update);
  }

  /** Enrols the pod that `workload` is, at its first address. */
  addPod({ name, namespace, serviceAccount, addresses, uid }: Workload): LoopbackPod {
    const [ip] = addresses;
    if (ip === undefined) throw new TypeError(`"${name}" has no address`);
    const shownClients: SocketAddress[] = [];
    const listeners: Listener[] = [];
    const proxy = openPodProxy(
      {
        context: this.runtime.context,
        datapath: {
          enrol: () => ({
            setListeners: () => undefined,
            unblock: () => undefined,
            setDns: () => undefined,
            dnsPorts: () => undefined,
            dnsServer: () => undefined,
          }),
          originalDestination: () => pod.destination,
          markAgentSocket: (_fd, client) => {
            if (client) shownClients.push(client);
          },
        },
        createEngine: () => spyOn(createHboneEngine(), listeners, () => pod.dialled),
        ipv6: true,
        dns: undefined,
        closeDescriptor: () => undefined,
        onDrained: () => undefined,
      },
      {
        uid: uid.replaceAll(/\W/g, "-") as PodUid,
        ...{ name, namespace, serviceAccount, addresses },
        ...{ netns: "", netnsCookie: 0n, id: 1 },
      },
      createNetns(ip),
    );
    const pod: LoopbackPod = {
      proxy,
      outbound: addressAt(listeners, 0),
      inbound: addressAt(listeners, 1),
      destination: undefined,
      dialled: undefined,
      shownClients,
    };
    this.#pods.push(pod);
    return pod;
  }

  access(): readonly LogLine[] {
    return this.lines.filter(({ target }) => target === "access");
  }

  async close(): Promise<void> {
    await Promise.all(this.#pods.map(({ proxy }) => proxy.drain(0)));
    this.certificates.close();
    this.runtime.context.live.close();
  }
}

/** Listeners come in this order: outbound, inbound, tunnel. Only the tunnel's address is fixed. */
function createNetns(ip: string): PodNetns {
  let opened = 0;
  return {
    cookie: () => 1n,
    openSocket: ({ bind }) => boundSocket(bind ?? ip),
    openUdpSocket: () => assert.fail("DNS is left alone here"),
    listen: () => (++opened === 3 ? boundSocket(ip, 15_008) : boundSocket(ip)),
    close: () => undefined,
  };
}

function addressAt(listeners: readonly Listener[], index: number): SocketAddress {
  const listener = listeners[index];
  if (!listener) throw new TypeError(`listener ${index} was not opened`);
  return listener.address;
}

/** Notes the listeners, and lets plaintext arrive at the address that the test says. */
function spyOn(
  engine: TunnelEngine,
  listeners: Listener[],
  dialled: () => SocketAddress | undefined,
): TunnelEngine {
  const note = (listener: Listener): Listener => {
    listeners.push(listener);
    return listener;
  };
  return {
    listenPlain: (fd, onConnection) => {
      const isInbound = listeners.length === 1;
      return note(
        engine.listenPlain(fd, (connection) =>
          onConnection(isInbound ? arrivingAt(connection, dialled()) : connection),
        ),
      );
    },
    listenTunnel: (fd, options) => note(engine.listenTunnel(fd, options)),
    load: () => engine.load(),
    drain: (limitMs) => engine.drain(limitMs),
    close: () => engine.close(),
  };
}

function arrivingAt(
  connection: PlainConnection,
  local: SocketAddress | undefined,
): PlainConnection {
  return {
    fd: connection.fd,
    peer: connection.peer,
    local: local ?? connection.local,
    connect: (upstream) => connection.connect(upstream),
    refuse: () => connection.refuse(),
  };
}

export function address(text: string, port: number): SocketAddress {
  return { ip: parseIp(text), port };
}
