/**
 * TLS contexts, one per material: to make one means to parse keys and certificates, which is more
 * work than a handshake. A renewal is a new material, so it never touches what is connected.
 */
import { constants } from "node:crypto";
import {
  createSecureContext,
  createServer,
  type SecureContext,
  type SecureContextOptions,
  type Server,
} from "node:tls";

/** What a TLS end shows and believes. */
export interface Material {
  readonly certificateChainPem: string;
  readonly privateKeyPem: string;
  readonly rootsPem: string;
}

export class ClientContexts {
  readonly #contexts = new WeakMap<Material, SecureContext>();

  /** @throws Error of node:tls where the material cannot be read */
  of(material: Material): SecureContext {
    const known = this.#contexts.get(material);
    if (known) return known;
    const context = createSecureContext(contextOptions(material));
    this.#contexts.set(material, context);
    return context;
  }
}

/** Servers that do not listen: connections are put into them by emitting `connection`. */
export class ServerContexts {
  readonly #servers = new WeakMap<Material, Server>();
  readonly #prepare: (server: Server) => void;

  /** @param prepare  attaches what hears of handshakes, once per server */
  constructor(prepare: (server: Server) => void) {
    this.#prepare = prepare;
  }

  /** @throws Error of node:tls where the material cannot be read */
  of(material: Material): Server {
    const known = this.#servers.get(material);
    if (known) return known;
    const server = createServer({
      ...contextOptions(material),
      ALPNProtocols: ["h2"],
      requestCert: true,
      // Refused by judgePeer(), which can say why.
      rejectUnauthorized: false,
    });
    this.#prepare(server);
    this.#servers.set(material, server);
    return server;
  }
}

function contextOptions(material: Material): SecureContextOptions {
  return {
    cert: material.certificateChainPem,
    key: material.privateKeyPem,
    ca: material.rootsPem,
    minVersion: "TLSv1.3",
    maxVersion: "TLSv1.3",
    // No ChaCha20: the other implementations of HBONE do not offer it.
    ciphers: "TLS_AES_256_GCM_SHA384:TLS_AES_128_GCM_SHA256",
    // A resumed session would outlive the certificate that it was judged by.
    secureOptions: constants.SSL_OP_NO_TICKET,
  };
}
