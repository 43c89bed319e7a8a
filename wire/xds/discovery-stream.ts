/** One delta ADS stream of a client: asks for both types, applies responses, answers them. */
import { create } from "@bufbuild/protobuf";
import {
  type Client,
  type ClientDuplexStream,
  connectivityState,
  type Metadata,
  type ServiceError,
  status,
} from "@grpc/grpc-js";
import { MeshError } from "#core/errors.ts";
import { type DeltaDiscoveryRequest, DeltaDiscoveryRequestSchema } from "#wire/gen/discovery_pb.js";
import type { DiscoveryHandlers, DiscoveryNode, Rejection, TerminationReason } from "./client.ts";
import { DELTA_METHOD_OF_CLIENT, type ReceivedResponse } from "./delta-method.ts";
import type { ReceivedState } from "./received-state.ts";
import { DISCOVERY_TYPES } from "./type-urls.ts";

export interface StreamEnd {
  readonly reason: TerminationReason;
  readonly error: Error;
}

const CONNECT_LIMIT_MS = 5_000;

/** Of the rejections in one response, as many as an operator reads; the rest is counted. */
const REASONS_MAX = 20;

/** Ends of a stream that worked: the server goes away, or moves its clients on. */
const ORDINARY_ENDS: ReadonlySet<status> = new Set([
  status.CANCELLED,
  status.DEADLINE_EXCEEDED,
  status.UNAVAILABLE,
]);

export class DiscoveryStream {
  readonly #client: Client;
  readonly #call: ClientDuplexStream<DeltaDiscoveryRequest, ReceivedResponse>;
  readonly #state: ReceivedState;
  readonly #handlers: DiscoveryHandlers;
  readonly #answered = new Set<string>();
  #processing: Promise<void> = Promise.resolve();

  constructor(
    client: Client,
    metadata: Metadata,
    state: ReceivedState,
    handlers: DiscoveryHandlers,
  ) {
    const { path, requestSerialize, responseDeserialize } = DELTA_METHOD_OF_CLIENT;
    this.#client = client;
    this.#call = client.makeBidiStreamRequest(
      path,
      requestSerialize,
      responseDeserialize,
      metadata,
    );
    this.#state = state;
    this.#handlers = handlers;
  }

  /**
   * Runs until the stream ends, or `signal` ends it.
   *
   * @param onReady  called each time after both types have had a response
   */
  async run(node: DiscoveryNode, signal: AbortSignal, onReady: () => void): Promise<StreamEnd> {
    const ended = Promise.withResolvers<StreamEnd>();
    const call = this.#call;
    const abort = () => call.cancel();
    const connectTimer = setTimeout(() => this.#checkConnected(ended.resolve), CONNECT_LIMIT_MS);
    call.on("error", (error: ServiceError) => ended.resolve(this.#endOf(error)));
    call.on("end", () => ended.resolve({ reason: "Complete", error: COMPLETED }));
    call.on("data", (received: ReceivedResponse) => {
      clearTimeout(connectTimer);
      // Responses are applied one after the other, and unread ones hold the server back.
      call.pause();
      this.#processing = this.#process(received, signal, onReady).then(
        () => void call.resume(),
        // A handler or a decoder has thrown what it must not: this stream cannot go on.
        (error: Error) => ended.resolve({ reason: "Error", error }),
      );
    });
    if (signal.aborted) abort();
    signal.addEventListener("abort", abort, { once: true });
    this.#subscribe(node);
    try {
      return await ended.promise;
    } finally {
      clearTimeout(connectTimer);
      signal.removeEventListener("abort", abort);
      call.cancel();
      // What was received in full is applied in full: the next stream says that we have it.
      await this.#processing;
    }
  }

  #subscribe(node: DiscoveryNode): void {
    for (const typeUrl of DISCOVERY_TYPES) {
      const initialResourceVersions = this.#state.initialVersions(typeUrl);
      this.#write({ node: nodeMessage(node), typeUrl, initialResourceVersions });
    }
  }

  async #process(
    { response, bytes }: ReceivedResponse,
    signal: AbortSignal,
    onReady: () => void,
  ): Promise<void> {
    const { typeUrl, nonce } = response;
    if (this.#answered.size === 0) this.#handlers.onConnection({ kind: "connected" });
    this.#handlers.onMessage(typeUrl, bytes);
    const { update, rejections } = await this.#state.apply(response);
    if (signal.aborted) return;
    this.#handlers.onUpdate(update);
    if (rejections.length > 0) this.#handlers.onRejections(rejections);
    this.#write({
      typeUrl,
      responseNonce: nonce,
      ...(rejections.length > 0 && { errorDetail: errorDetailOf(rejections) }),
    });
    this.#answered.add(typeUrl);
    if (DISCOVERY_TYPES.every((type) => this.#answered.has(type))) onReady();
  }

  #write(request: Parameters<typeof create<typeof DeltaDiscoveryRequestSchema>>[1]): void {
    this.#call.write(create(DeltaDiscoveryRequestSchema, request));
  }

  /** A server that cannot be reached at all is not waited for as long as TCP would. */
  #checkConnected(end: (end: StreamEnd) => void): void {
    if (this.#client.getChannel().getConnectivityState(false) === connectivityState.READY) return;
    const message = `Cannot connect to control: no connection within ${CONNECT_LIMIT_MS} ms`;
    end({ reason: "ConnectionError", error: new MeshError("CONTROL_UNREACHABLE", message) });
  }

  #endOf(error: ServiceError): StreamEnd {
    const message = `Cannot go on with discovery: ${error.details || error.message}`;
    const isAnswered = this.#answered.size > 0;
    const isOrdinary = ORDINARY_ENDS.has(error.code);
    return {
      reason: isOrdinary ? (isAnswered ? "Reconnect" : "ConnectionError") : "Error",
      error: new MeshError("CONTROL_UNREACHABLE", message),
    };
  }
}

const COMPLETED = new MeshError("CONTROL_UNREACHABLE", "Cannot go on: control ended the stream");

function errorDetailOf(rejections: readonly Rejection[]) {
  const reasons = rejections.slice(0, REASONS_MAX).map(({ name, reason }) => `${name}: ${reason}`);
  const more = rejections.length - reasons.length;
  const message = [...reasons, ...(more > 0 ? [`and ${more} more`] : [])].join("; ");
  return { code: status.INVALID_ARGUMENT, message };
}

function nodeMessage({ ip, podName, podNamespace, nodeName, metadata }: DiscoveryNode) {
  return {
    id: `ztunnel~${ip}~${podName}.${podNamespace}~${podNamespace}.svc.cluster.local`,
    metadata: {
      ...metadata,
      NAME: podName,
      NAMESPACE: podNamespace,
      INSTANCE_IPS: ip,
      NODE_NAME: nodeName,
    },
  };
}
