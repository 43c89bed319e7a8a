import type { SpiffeId } from "#core/spiffe-id.ts";
import type { CertificateClient, CertificateRequest, IssuedCertificate } from "#wire/ca/client.ts";
import type { KeyAndCsr } from "#wire/ca/csr.ts";
import type { ControlEndpoint } from "#wire/xds/control-endpoint.ts";

/**
 * The certificate authority, whose client is loaded when it is first asked: pods of the last run
 * are served long before one of them needs a certificate.
 */
export class LazyAuthority {
  readonly #endpoint: ControlEndpoint;
  #client: Promise<CertificateClient> | undefined;

  constructor(endpoint: ControlEndpoint) {
    this.#endpoint = endpoint;
  }

  async request(request: CertificateRequest, signal?: AbortSignal): Promise<IssuedCertificate> {
    this.#client ??= this.#load();
    return (await this.#client).request(request, signal);
  }

  async createCsr(identity: SpiffeId): Promise<KeyAndCsr> {
    const { createCsr } = await import("#wire/ca/csr.ts");
    return createCsr(identity);
  }

  async close(): Promise<void> {
    (await this.#client)?.close();
  }

  async #load(): Promise<CertificateClient> {
    const { createCertificateClient } = await import("#wire/ca/client.ts");
    return createCertificateClient(this.#endpoint);
  }
}
