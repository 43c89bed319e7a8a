/** The client of the certificate service (`istio.v1.auth.IstioCertificateService`). */
import type { Validity } from "#core/certificate.ts";
import type { SpiffeId } from "#core/spiffe-id.ts";
import type { ControlEndpoint } from "../xds/control-endpoint.ts";

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
   *   certificate that was not asked for; `CERTIFICATE_UNAVAILABLE` where it did not answer
   */
  request(request: CertificateRequest, signal?: AbortSignal): Promise<IssuedCertificate>;
  close(): void;
}

export function createCertificateClient(_endpoint: ControlEndpoint): CertificateClient {
  throw new TypeError("not written yet");
}
