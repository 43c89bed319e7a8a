/**
 * The server of workload discovery: one delta ADS stream per node.
 *
 * What to send is delta-session.ts's to say. This file moves it: it keeps one response at a time on
 * its way, and ends streams that cannot go on.
 */
import { Metadata, type Server, type ServerDuplexStream, status } from "@grpc/grpc-js";
import type { DeltaDiscoveryRequest } from "#wire/gen/discovery_pb.js";
import type { Caller, CallerRefusedEvent } from "./caller.ts";
import type { CallerGate } from "./caller-gate.ts";
import { DELTA_METHOD_OF_SERVER } from "./delta-method.ts";
import { type Accepted, type Catalog, type CatalogChange, DeltaSession } from "./delta-session.ts";
import { joinResponse } from "./resource.ts";
import type { DiscoveryType } from "./type-urls.ts";

export type DiscoveryServerEvent =
  | { readonly kind: "subscribed"; readonly node: string; readonly typeUrl: DiscoveryType }
  | {
      readonly kind: "pushed";
      readonly node: string;
      readonly typeUrl: DiscoveryType;
      readonly changed: number;
      readonly removed: number;
      readonly bytes: number;
    }
  | {
      readonly kind: "rejected";
      readonly node: string;
      readonly typeUrl: DiscoveryType;
      /** What the node said about it. */
      readonly reason: string;
    }
  | { readonly kind: "streamEnded"; readonly node: string; readonly reason: string }
  | CallerRefusedEvent;

export interface DiscoveryServerOptions {
  readonly catalog: () => Catalog;
  /** The gate of the gRPC server that this is added to. */
  readonly gate: CallerGate;
  /** Must not throw. */
  readonly onEvent: (event: DiscoveryServerEvent) => void;
  /** Tests shorten it. */
  readonly stallLimitMs?: number;
}

type Call = ServerDuplexStream<DeltaDiscoveryRequest, Uint8Array>;

/** A node has one stream, and a second while its agent is replaced. */
const STREAMS_PER_NODE_MAX = 8;

/** How long a subscriber may leave what it was sent unread or unanswered before it is cut off. */
const STALL_LIMIT_MS = 60_000;

/** A client sends both subscriptions at once. One that sends no second is given its addresses. */
const POLICIES_WAIT_MS = 100;

export class DiscoveryServer {
  readonly #options: DiscoveryServerOptions;
  readonly #streams = new Set<Stream>();
  #closed = false;

  constructor(options: DiscoveryServerOptions) {
    this.#options = options;
  }

  addTo(server: Server): void {
    server.addService(
      { deltaAggregatedResources: DELTA_METHOD_OF_SERVER },
      { deltaAggregatedResources: (call: Call) => this.#serve(call) },
    );
  }

  /** Tells all subscribers. The catalog has to be the new one already. */
  push(change: CatalogChange): void {
    for (const stream of this.#streams) stream.changed(change);
  }

  get streams(): number {
    return this.#streams.size;
  }

  /** The nodes that are subscribed, and whether each has answered all that it was sent. */
  get nodes(): ReadonlyMap<string, boolean> {
    const nodes = new Map<string, boolean>();
    for (const { node, isCurrent } of this.#streams) {
      nodes.set(node, isCurrent || nodes.get(node) === true);
    }
    return nodes;
  }

  /** Ends all streams, and each new one at once. Clients take UNAVAILABLE for "come back". */
  close(): void {
    this.#closed = true;
    for (const stream of this.#streams) {
      stream.end(status.UNAVAILABLE, "Cannot go on: the server is closing");
    }
  }

  #serve(call: Call): void {
    const { gate, onEvent } = this.#options;
    const caller = gate.callerOf(call.metadata);
    const obstacle = this.#obstacleFor(caller);
    if (obstacle) {
      endCall(call, obstacle.code, obstacle.reason);
      onEvent({ kind: "callerRefused", peer: call.getPeer(), reason: obstacle.reason });
      return;
    }
    const stream = new Stream(call, caller, this.#options);
    this.#streams.add(stream);
    // Counted until it is really gone: one that is ended, yet never read to its end, holds memory.
    call.once("close", () => this.#streams.delete(stream));
  }

  #obstacleFor({ node }: Caller): { code: status; reason: string } | undefined {
    if (this.#closed) {
      return { code: status.UNAVAILABLE, reason: "Cannot serve: the server is closing" };
    }
    const streamsOfNode = [...this.#streams].filter((stream) => stream.node === node).length;
    if (streamsOfNode < STREAMS_PER_NODE_MAX) return undefined;
    const reason = `Cannot serve node "${node}": it has ${streamsOfNode} streams already`;
    return { code: status.RESOURCE_EXHAUSTED, reason };
  }
}

class Stream {
  readonly node: string;
  readonly #call: Call;
  readonly #options: DiscoveryServerOptions;
  readonly #session: DeltaSession;
  #isWriting = false;
  #ended = false;
  #policiesTimer: NodeJS.Timeout | undefined;
  #stallTimer: NodeJS.Timeout | undefined;

  constructor(call: Call, caller: Caller, options: DiscoveryServerOptions) {
    this.node = caller.node;
    this.#call = call;
    this.#options = options;
    this.#session = new DeltaSession(options.catalog);
    // They live and die with the call, which this stream owns.
    call.on("cancelled", () => this.#close("cancelled by the client"));
    call.on("close", () => this.#close("closed by the client"));
    call.on("end", () => this.end(status.OK, "ended by the client"));
    call.on("data", (request: DeltaDiscoveryRequest) => this.#onRequest(request));
  }

  get isCurrent(): boolean {
    return !this.#ended && this.#session.isCurrent;
  }

  changed(change: CatalogChange): void {
    this.#session.changed(change);
    this.#send();
  }

  end(code: status, reason: string): void {
    if (this.#ended) return;
    this.#close(reason);
    endCall(this.#call, code, reason);
  }

  #onRequest(request: DeltaDiscoveryRequest): void {
    if (this.#ended) return;
    const stranger = otherNodeName(request, this.node);
    if (stranger !== undefined) {
      const reason = `Cannot serve node "${stranger}": the token is of node "${this.node}"`;
      this.#options.onEvent({ kind: "callerRefused", peer: this.#call.getPeer(), reason });
      this.end(status.PERMISSION_DENIED, reason);
      return;
    }
    this.#report(this.#session.accept(request));
    if (this.#session.holdsAddresses) this.#awaitPolicies();
    this.#send();
  }

  #report(accepted: Accepted): void {
    switch (accepted.kind) {
      case "subscribed":
        this.#options.onEvent({ node: this.node, ...accepted });
        return;
      case "rejected":
        this.#noteProgress();
        this.#options.onEvent({ node: this.node, ...accepted });
        return;
      case "refused":
        this.end(accepted.code, accepted.reason);
        return;
      case "acknowledged":
        this.#noteProgress();
        return;
      case "ignored":
        return;
    }
  }

  #awaitPolicies(): void {
    this.#policiesTimer ??= setTimeout(() => {
      this.#session.releaseAddresses();
      this.#send();
    }, POLICIES_WAIT_MS);
  }

  /** One response at a time: the next is made when this one has left, of what is newest then. */
  #send(): void {
    if (this.#ended || this.#isWriting) return;
    const parts = this.#session.next();
    if (!parts) {
      if (this.#session.isStalled) this.#watchForStall();
      return;
    }
    const bytes = joinResponse(parts);
    const { typeUrl, changed, removed } = parts;
    this.#options.onEvent({
      kind: "pushed",
      node: this.node,
      typeUrl,
      changed: changed.length,
      removed: removed.length,
      bytes: bytes.length,
    });
    this.#isWriting = true;
    this.#watchForStall();
    this.#call.write(bytes, () => {
      this.#isWriting = false;
      this.#noteProgress();
      this.#send();
    });
  }

  /** From the first thing that is waited for: what is added to it does not make it any longer. */
  #watchForStall(): void {
    const limitMs = this.#options.stallLimitMs ?? STALL_LIMIT_MS;
    const reason = `Cannot go on: nothing was read or answered for ${limitMs} ms`;
    this.#stallTimer ??= setTimeout(() => this.end(status.DEADLINE_EXCEEDED, reason), limitMs);
  }

  #noteProgress(): void {
    clearTimeout(this.#stallTimer);
    this.#stallTimer = undefined;
    if (this.#isWriting && !this.#ended) this.#watchForStall();
  }

  #close(reason: string): void {
    if (this.#ended) return;
    this.#ended = true;
    clearTimeout(this.#policiesTimer);
    clearTimeout(this.#stallTimer);
    this.#options.onEvent({ kind: "streamEnded", node: this.node, reason });
  }
}

/** The node name a request claims, where it is not `node`. */
function otherNodeName({ node }: DeltaDiscoveryRequest, expected: string): string | undefined {
  const claimed = node?.metadata?.["NODE_NAME"];
  return claimed === undefined || claimed === expected ? undefined : String(claimed);
}

function endCall(call: Call, code: status, details: string): void {
  if (code === status.OK) {
    call.end();
  } else {
    call.emit("error", { code, details, metadata: new Metadata() });
  }
}
