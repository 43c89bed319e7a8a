/** The one method of discovery, as each side of it sees the messages. */
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import type { MethodDefinition } from "@grpc/grpc-js";
import {
  type DeltaDiscoveryRequest,
  DeltaDiscoveryRequestSchema,
  type DeltaDiscoveryResponse,
  DeltaDiscoveryResponseSchema,
} from "#wire/gen/discovery_pb.js";

const PATH =
  "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources" as const;

/** What clients and servers of the contract allow a message to have; grpc's own limit is 4 MiB. */
export const MESSAGE_BYTES_MAX = 200 * 1024 * 1024;

export interface ReceivedResponse {
  readonly response: DeltaDiscoveryResponse;
  /** Of the message, for metrics. */
  readonly bytes: number;
}

const requests = {
  path: PATH,
  requestStream: true,
  responseStream: true,
  requestSerialize: (request: DeltaDiscoveryRequest) =>
    Buffer.from(toBinary(DeltaDiscoveryRequestSchema, request)),
  requestDeserialize: (bytes: Buffer) => fromBinary(DeltaDiscoveryRequestSchema, bytes),
} as const;

/** A server sends bytes that it has put together itself, see joinResponse(). */
export const DELTA_METHOD_OF_SERVER: MethodDefinition<DeltaDiscoveryRequest, Uint8Array> = {
  ...requests,
  responseSerialize: (bytes) => Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength),
  responseDeserialize: (bytes) => bytes,
};

export const DELTA_METHOD_OF_CLIENT: MethodDefinition<DeltaDiscoveryRequest, ReceivedResponse> = {
  ...requests,
  responseSerialize: ({ response }) =>
    Buffer.from(
      toBinary(DeltaDiscoveryResponseSchema, create(DeltaDiscoveryResponseSchema, response)),
    ),
  responseDeserialize: (bytes) => ({
    response: fromBinary(DeltaDiscoveryResponseSchema, bytes),
    bytes: bytes.length,
  }),
};
