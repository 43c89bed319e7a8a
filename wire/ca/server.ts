/** The certificate service, without the authority behind it. */
import { create } from "@bufbuild/protobuf";
import {
  Metadata,
  type Server,
  type ServerUnaryCall,
  type sendUnaryData,
  status,
} from "@grpc/grpc-js";
import { reasonOf } from "#core/errors.ts";
import {
  type IstioCertificateRequest,
  type IstioCertificateResponse,
  IstioCertificateResponseSchema,
} from "#wire/gen/ca_pb.js";
import type { Caller } from "../xds/caller.ts";
import type { CallerGate } from "../xds/caller-gate.ts";
import { CREATE_CERTIFICATE, IMPERSONATED_IDENTITY } from "./certificate-method.ts";

export interface SigningRequest {
  readonly caller: Caller;
  readonly csrPem: string;
  /** 0 leaves it to the authority. Can be any int64, also a negative one. */
  readonly ttlSeconds: bigint;
  /** For whom the caller asks; undefined for itself. Not checked yet. */
  readonly impersonated: string | undefined;
}

export type SigningOutcome =
  | {
      readonly kind: "issued";
      readonly identity: string;
      readonly serialNumber: string;
      readonly notAfterMs: number;
      /** Leaf first, then the intermediates. */
      readonly chainPem: readonly string[];
      readonly rootsPem: readonly string[];
    }
  /** The caller may not have it. */
  | { readonly kind: "forbidden"; readonly reason: string }
  /** Nobody may have it. */
  | { readonly kind: "invalid"; readonly reason: string };

export type CertificateServerEvent =
  | {
      readonly kind: "certificateIssued";
      readonly node: string;
      readonly identity: string;
      readonly serialNumber: string;
      readonly notAfterMs: number;
    }
  | { readonly kind: "certificateRefused"; readonly node: string; readonly reason: string };

export interface CertificateServiceOptions {
  /** The gate of the gRPC server that this is added to. */
  readonly gate: CallerGate;
  readonly sign: (request: SigningRequest) => Promise<SigningOutcome>;
  /** Must not throw. */
  readonly onEvent: (event: CertificateServerEvent) => void;
}

type Call = ServerUnaryCall<IstioCertificateRequest, IstioCertificateResponse>;
type Respond = sendUnaryData<IstioCertificateResponse>;

export function addCertificateService(server: Server, options: CertificateServiceOptions): void {
  server.addService(
    { createCertificate: CREATE_CERTIFICATE },
    { createCertificate: (call: Call, respond: Respond) => void serve(call, respond, options) },
  );
}

async function serve(call: Call, respond: Respond, options: CertificateServiceOptions) {
  const { gate, sign, onEvent } = options;
  const caller = gate.callerOf(call.metadata);
  const { node } = caller;
  const outcome = await signSafely(sign, caller, call.request);
  switch (outcome.kind) {
    case "issued": {
      const { identity, serialNumber, notAfterMs, chainPem, rootsPem } = outcome;
      const certChain = [...chainPem, rootsPem.join("")];
      respond(null, create(IstioCertificateResponseSchema, { certChain }));
      onEvent({ kind: "certificateIssued", node, identity, serialNumber, notAfterMs });
      return;
    }
    case "forbidden":
      // Not PERMISSION_DENIED: UNAUTHENTICATED is what istiod says here, and what agents expect.
      respond(failure(status.UNAUTHENTICATED, outcome.reason));
      break;
    case "invalid":
      respond(failure(status.INVALID_ARGUMENT, outcome.reason));
      break;
    case "failed":
      respond(failure(status.INTERNAL, outcome.reason));
      break;
  }
  onEvent({ kind: "certificateRefused", node, reason: outcome.reason });
}

async function signSafely(
  sign: CertificateServiceOptions["sign"],
  caller: Caller,
  { csr, validityDuration, metadata }: IstioCertificateRequest,
): Promise<SigningOutcome | { readonly kind: "failed"; readonly reason: string }> {
  const impersonated = metadata?.[IMPERSONATED_IDENTITY];
  if (impersonated !== undefined && typeof impersonated !== "string") {
    return { kind: "invalid", reason: `Cannot sign: ${IMPERSONATED_IDENTITY} is not a text` };
  }
  try {
    return await sign({ caller, csrPem: csr, ttlSeconds: validityDuration, impersonated });
  } catch (error) {
    return { kind: "failed", reason: `Cannot sign: ${reasonOf(error)}` };
  }
}

function failure(code: status, details: string) {
  return { code, details, metadata: new Metadata() };
}
