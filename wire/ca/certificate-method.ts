/** The one method of the certificate service. */
import { fromBinary, toBinary } from "@bufbuild/protobuf";
import type { MethodDefinition } from "@grpc/grpc-js";
import {
  type IstioCertificateRequest,
  IstioCertificateRequestSchema,
  type IstioCertificateResponse,
  IstioCertificateResponseSchema,
} from "#wire/gen/ca_pb.js";

/** Key in the request's metadata: for whom the caller asks, where it is not for itself. */
export const IMPERSONATED_IDENTITY = "ImpersonatedIdentity";

export const CREATE_CERTIFICATE: MethodDefinition<
  IstioCertificateRequest,
  IstioCertificateResponse
> = {
  path: "/istio.v1.auth.IstioCertificateService/CreateCertificate",
  requestStream: false,
  responseStream: false,
  requestSerialize: (request) => Buffer.from(toBinary(IstioCertificateRequestSchema, request)),
  requestDeserialize: (bytes) => fromBinary(IstioCertificateRequestSchema, bytes),
  responseSerialize: (response) => Buffer.from(toBinary(IstioCertificateResponseSchema, response)),
  responseDeserialize: (bytes) => fromBinary(IstioCertificateResponseSchema, bytes),
};
