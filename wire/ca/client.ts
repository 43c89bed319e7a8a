/** The client of the certificate service (`istio.v1.auth.IstioCertificateService`). */
import { X509Certificate } from "node:crypto";
import { create } from "@bufbuild/protobuf";
import { type Client, type ServiceError, status } from "@grpc/grpc-js";
import type { Validity } from "#core/certificate.ts";
import { MeshError, reasonOf } from "#core/errors.ts";
import type { SpiffeId } from "#core/spiffe-id.ts";
import {
  type IstioCertificateRequest,
  IstioCertificateRequestSchema,
  type IstioCertificateResponse,
} from "#wire/gen/ca_pb.js";
import { callMetadata, createChannel } from "../xds/channel.ts";
import type { ControlEndpoint } from "../xds/control-endpoint.ts";
import { CREATE_CERTIFICATE, IMPERSONATED_IDENTITY } from "./certificate-method.ts";
import { publicKeyOfCsr } from "./csr.ts";
import { splitCertificates } from "./pem.ts";

export interface CertificateRequest {
  readonly identity: SpiffeId;
  /** A PKCS#10 request in PEM; `createCsr()` of csr.ts makes one. */
  readonly csrPem: string;
  /** Seconds; 0 leaves it to the authority (24 h). */
  readonly ttlSeconds: number;
  /** Asks in the name of `identity` (a node for its pods), instead of for the caller itself. */
  readonly impersonate: boolean;
}

export interface IssuedCertificate {
  readonly identity: SpiffeId;
  /** Leaf first, then the intermediates, each one PEM block: what a TLS end shows. */
  readonly chainPem: readonly string[];
  /** What the peers' chains have to lead to, each one PEM block. At least one. */
  readonly rootsPem: readonly string[];
  readonly validity: Validity;
  /** Upper-case hex. */
  readonly serialNumber: string;
}

export interface CertificateClient {
  /**
   * @throws MeshError `CERTIFICATE_REFUSED` where the authority says no, or answers with a
   *   certificate that was not asked for. A no can turn into a yes: the authority may hear of a pod
   *   later than the node that asks for it. `CERTIFICATE_UNAVAILABLE` where it did not answer.
   */
  request(request: CertificateRequest, signal?: AbortSignal): Promise<IssuedCertificate>;
  close(): void;
}

/** An authority signs in milliseconds; this also covers a connection that has to be made first. */
const REQUEST_LIMIT_MS = 10_000;

/** Statuses that say nothing about the request itself. */
const NO_ANSWER: ReadonlySet<status> = new Set([
  status.CANCELLED,
  status.UNKNOWN,
  status.DEADLINE_EXCEEDED,
  status.RESOURCE_EXHAUSTED,
  status.ABORTED,
  status.INTERNAL,
  status.UNAVAILABLE,
]);

export function createCertificateClient(endpoint: ControlEndpoint): CertificateClient {
  return new GrpcCertificateClient(endpoint);
}

class GrpcCertificateClient implements CertificateClient {
  readonly #endpoint: ControlEndpoint;
  #channel: { readonly client: Client; readonly rootsPem: string | undefined } | undefined;

  constructor(endpoint: ControlEndpoint) {
    this.#endpoint = endpoint;
  }

  async request(request: CertificateRequest, signal?: AbortSignal): Promise<IssuedCertificate> {
    const { identity, csrPem, ttlSeconds, impersonate } = request;
    signal?.throwIfAborted();
    const message = create(IstioCertificateRequestSchema, {
      csr: csrPem,
      validityDuration: BigInt(ttlSeconds),
      ...(impersonate && { metadata: { [IMPERSONATED_IDENTITY]: identity } }),
    });
    const response = await this.#call(identity, message, signal);
    return checkedCertificate(response.certChain, identity, csrPem);
  }

  close(): void {
    this.#channel?.client.close();
    this.#channel = undefined;
  }

  async #call(
    identity: SpiffeId,
    message: IstioCertificateRequest,
    signal: AbortSignal | undefined,
  ): Promise<IstioCertificateResponse> {
    try {
      const client = await this.#connect();
      const metadata = await callMetadata(this.#endpoint);
      return await new Promise((resolve, reject) => {
        const abort = () => call.cancel();
        const { path, requestSerialize, responseDeserialize } = CREATE_CERTIFICATE;
        const options = { deadline: Date.now() + REQUEST_LIMIT_MS };
        const call = client.makeUnaryRequest(
          path,
          requestSerialize,
          responseDeserialize,
          message,
          metadata,
          options,
          (error: ServiceError | null, response?: IstioCertificateResponse) => {
            signal?.removeEventListener("abort", abort);
            if (response) resolve(response);
            else reject(error ?? new TypeError("neither an error nor a response"));
          },
        );
        signal?.addEventListener("abort", abort, { once: true });
      });
    } catch (error) {
      throw failureOf(error, identity);
    }
  }

  /** Roots are looked at each time; new ones need a new connection. */
  async #connect(): Promise<Client> {
    const rootsPem = await this.#endpoint.readRoots();
    if (this.#channel && this.#channel.rootsPem === rootsPem) return this.#channel.client;
    this.close();
    const client = createChannel(this.#endpoint, rootsPem);
    this.#channel = { client, rootsPem };
    return client;
  }
}

function failureOf(error: unknown, identity: SpiffeId): MeshError {
  const message = `Cannot get a certificate for "${identity}"`;
  const isAnswer = isServiceError(error) && !NO_ANSWER.has(error.code);
  const code = isAnswer ? "CERTIFICATE_REFUSED" : "CERTIFICATE_UNAVAILABLE";
  const reason = isServiceError(error) ? error.details : reasonOf(error);
  return new MeshError(code, `${message}: ${reason}`);
}

function isServiceError(error: unknown): error is ServiceError {
  return error instanceof Error && "code" in error && "details" in error && "metadata" in error;
}

/**
 * Takes an answer apart, and makes sure that it is one to the question.
 *
 * @throws MeshError `CERTIFICATE_REFUSED`
 */
export function checkedCertificate(
  certChain: readonly string[],
  identity: SpiffeId,
  csrPem: string,
): IssuedCertificate {
  const chainPem = certChain.slice(0, -1).flatMap(splitCertificates);
  const rootsPem = splitCertificates(certChain.at(-1) ?? "");
  try {
    const chain = chainPem.map((pem) => new X509Certificate(pem));
    const roots = rootsPem.map((pem) => new X509Certificate(pem));
    const [leaf] = chain;
    if (!leaf || roots.length === 0) refuse("the answer has no root certificate beside the leaf");
    if (!isFor(leaf, identity)) refuse(`it is for ${leaf.subjectAltName ?? "nobody"}`);
    const asked = publicKeyOfCsr(csrPem);
    if (!leaf.publicKey.export({ type: "spki", format: "der" }).equals(asked)) {
      refuse("it is for another key");
    }
    if (!leadsTo(chain, roots)) refuse("its chain does not lead to the root that came with it");
    const { validFromDate, validToDate, serialNumber } = leaf;
    const validity = { notBeforeMs: validFromDate.getTime(), notAfterMs: validToDate.getTime() };
    return { identity, chainPem, rootsPem, validity, serialNumber };
  } catch (error) {
    const message = `Cannot use the certificate for "${identity}": ${reasonOf(error)}`;
    throw new MeshError("CERTIFICATE_REFUSED", message);
  }
}

function refuse(reason: string): never {
  throw new MeshError("CERTIFICATE_REFUSED", reason);
}

/** One URI and nothing else: whoever reads more than the first name must find the same identity. */
function isFor({ subjectAltName }: X509Certificate, identity: SpiffeId): boolean {
  return subjectAltName === `URI:${identity}`;
}

function leadsTo(chain: readonly X509Certificate[], roots: readonly X509Certificate[]): boolean {
  return chain.every((certificate, index) => {
    const next = chain[index + 1];
    const issuers = next ? [next] : roots;
    return issuers.some(
      (issuer) => certificate.checkIssued(issuer) && certificate.verify(issuer.publicKey),
    );
  });
}
