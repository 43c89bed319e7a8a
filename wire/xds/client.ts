/**
 * The client of workload discovery: keeps one delta ADS stream to the control server, and turns
 * what comes over it into batches of core types.
 */
import { setTimeout } from "node:timers/promises";
import type { Policy } from "#core/policy/policy.ts";
import type { Service } from "#core/service/service.ts";
import type { PolicyKey, ServiceKey, Workload, WorkloadUid } from "#core/service/workload.ts";
import type { Difference } from "#core/snapshot.ts";
import { callMetadata, createChannel } from "./channel.ts";
import type { ControlEndpoint } from "./control-endpoint.ts";
import { DiscoveryStream, type StreamEnd } from "./discovery-stream.ts";
import { ReceivedState } from "./received-state.ts";

/** What one response changes. To be applied as a whole: policies, then services, then workloads. */
export interface DiscoveryUpdate {
  readonly workloads: Difference<WorkloadUid, Workload>;
  readonly services: Difference<ServiceKey, Service>;
  readonly policies: Difference<PolicyKey, Policy>;
}

/** A resource that was refused (NACK). What was known of it before stays. */
export interface Rejection {
  readonly typeUrl: string;
  /** The resource's name: a uid, `namespace/hostname` or `namespace/name`. */
  readonly name: string;
  readonly reason: string;
}

/**
 * What a stream ended of. The words are label values of `istio_xds_connection_terminations_total`.
 *
 * - `ConnectionError`: no connection came about
 * - `Reconnect`: an ordinary end (deadline, unavailable, cancelled, GOAWAY)
 * - `Error`: the server ended it with any other status
 * - `Complete`: the server ended it with OK
 */
export type TerminationReason = "ConnectionError" | "Reconnect" | "Error" | "Complete";

export type ConnectionChange =
  | { readonly kind: "connecting" }
  /** The server answered on this connection for the first time. */
  | { readonly kind: "connected" }
  | {
      readonly kind: "disconnected";
      readonly reason: TerminationReason;
      readonly error: Error;
      /** Milliseconds until the next attempt. */
      readonly retryDelayMs: number;
    };

/** Called on the main thread, one at a time, in the order of the stream. They must not throw. */
export interface DiscoveryHandlers {
  readonly onUpdate: (update: DiscoveryUpdate) => void;
  /** After the good part of the same response was handed to `onUpdate`. */
  readonly onRejections: (rejections: readonly Rejection[]) => void;
  readonly onConnection: (change: ConnectionChange) => void;
  /** One received response, for metrics. */
  readonly onMessage: (typeUrl: string, bytes: number) => void;
}

/** Who asks, as the contract's node id and metadata say it. */
export interface DiscoveryNode {
  /** The address of this process; `1.1.1.1` stands for none. */
  readonly ip: string;
  readonly podName: string;
  readonly podNamespace: string;
  readonly nodeName: string;
  /** ISTIO_META_… settings by the rest of their name, `CLUSTER_ID` among them. */
  readonly metadata: Readonly<Record<string, string>>;
}

export interface DiscoveryClientOptions {
  readonly endpoint: ControlEndpoint;
  readonly node: DiscoveryNode;
  readonly handlers: DiscoveryHandlers;
  /** In [0, 1): spreads the reconnects of many nodes. */
  readonly random: () => number;
}

export interface DiscoveryClient {
  /** Resolves once the first response of both types was processed. Never rejects. */
  readonly ready: Promise<void>;
  /** Ends the stream and all timers. No handler is called afterwards. */
  stop(): Promise<void>;
}

/** Connects, and goes on connecting until it is stopped. What was learned stays meanwhile. */
export function startDiscoveryClient(options: DiscoveryClientOptions): DiscoveryClient {
  const client = new ReconnectingClient(options);
  client.start();
  return client;
}

const RETRY_DELAY_MS = { first: 10, last: 15_000 } as const;

class ReconnectingClient implements DiscoveryClient {
  readonly ready: Promise<void>;
  readonly #options: DiscoveryClientOptions;
  readonly #state = new ReceivedState();
  readonly #stopping = new AbortController();
  #becomeReady: () => void = () => undefined;
  #running: Promise<void> = Promise.resolve();

  constructor(options: DiscoveryClientOptions) {
    this.#options = options;
    this.ready = new Promise((resolve) => {
      this.#becomeReady = resolve;
    });
  }

  start(): void {
    this.#running = this.#run();
  }

  async stop(): Promise<void> {
    this.#stopping.abort();
    await this.#running;
  }

  async #run(): Promise<void> {
    const { signal } = this.#stopping;
    const { handlers, random } = this.#options;
    let delayMs: number = RETRY_DELAY_MS.first;
    while (!signal.aborted) {
      handlers.onConnection({ kind: "connecting" });
      const { reason, error } = await this.#connectOnce(signal);
      if (signal.aborted) return;
      // An ordinary end of a stream that worked says nothing against the next one.
      if (reason === "Reconnect" || reason === "Complete") delayMs = RETRY_DELAY_MS.first;
      // From half of it upwards: nodes that lost one server come back one after the other.
      const retryDelayMs = delayMs * (0.5 + 0.5 * random());
      delayMs = Math.min(2 * delayMs, RETRY_DELAY_MS.last);
      handlers.onConnection({ kind: "disconnected", reason, error, retryDelayMs });
      await sleep(retryDelayMs, signal);
    }
  }

  /** One connection with one stream, from the first byte to its end. Never rejects. */
  async #connectOnce(signal: AbortSignal): Promise<StreamEnd> {
    const { endpoint, node, handlers } = this.#options;
    try {
      const client = createChannel(endpoint, await endpoint.readRoots());
      try {
        const metadata = await callMetadata(endpoint);
        const stream = new DiscoveryStream(client, metadata, this.#state, handlers);
        return await stream.run(node, signal, this.#becomeReady);
      } finally {
        client.close();
      }
    } catch (error) {
      // A token or a root that cannot be read: there may be one the next time.
      return { reason: "ConnectionError", error: error as Error };
    }
  }
}

async function sleep(delayMs: number, signal: AbortSignal): Promise<void> {
  // It only rejects where the signal says so, which the caller looks at itself.
  await setTimeout(delayMs, undefined, { signal }).catch(() => undefined);
}
