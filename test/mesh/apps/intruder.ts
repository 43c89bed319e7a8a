/**
 * Somebody on a node's network who tries what is not allowed. Reads one JSON object from stdin and
 * prints one: what became of the attempt.
 *
 *   certificate  asks the control server for a certificate
 *   tunnel       opens a session to port 15008 of a pod and sends one CONNECT
 */
import { connect as connectHttp2, constants } from "node:http2";
import { json } from "node:stream/consumers";
import { connect as connectTls } from "node:tls";
import { reasonOf } from "#core/errors.ts";
import { parseSpiffeId } from "#core/spiffe-id.ts";
import { createCertificateClient } from "#wire/ca/client.ts";
import { createCsr } from "#wire/ca/csr.ts";

export interface CertificateAttempt {
  readonly kind: "certificate";
  readonly url: string;
  readonly rootsPem: string;
  readonly token: string;
  readonly identity: string;
}

export interface TunnelAttempt {
  readonly kind: "tunnel";
  readonly ip: string;
  readonly authority: string;
  readonly chainPem: string;
  readonly keyPem: string;
  readonly rootsPem: string;
}

export interface Outcome {
  readonly chainPem?: string;
  readonly keyPem?: string;
  /** Of the answer to the CONNECT. */
  readonly status?: number;
  readonly error?: string;
}

async function askForCertificate(attempt: CertificateAttempt): Promise<Outcome> {
  const client = createCertificateClient({
    url: new URL(attempt.url),
    serverName: undefined,
    readRoots: async () => attempt.rootsPem,
    readToken: async () => attempt.token,
    headers: { clusterid: "Kubernetes" },
  });
  const identity = parseSpiffeId(attempt.identity);
  const { csrPem, keyPem } = await createCsr(identity);
  try {
    const issued = await client.request({ identity, csrPem, ttlSeconds: 0, impersonate: true });
    return { chainPem: issued.chainPem.join(""), keyPem };
  } finally {
    client.close();
  }
}

function openTunnel(attempt: TunnelAttempt): Promise<Outcome> {
  return new Promise((resolve, reject) => {
    const socket = connectTls({
      host: attempt.ip,
      port: 15_008,
      cert: attempt.chainPem,
      key: attempt.keyPem,
      ca: attempt.rootsPem,
      ALPNProtocols: ["h2"],
      minVersion: "TLSv1.3",
      checkServerIdentity: () => undefined,
    });
    socket.on("error", reject);
    socket.on("secureConnect", () => {
      const session = connectHttp2("https://tunnel", { createConnection: () => socket });
      session.on("error", reject);
      // In TLS 1.3 a server refuses the client's certificate after the client's handshake is over.
      session.on("close", () => reject(new Error("session closed without an answer")));
      const stream = session.request(
        {
          [constants.HTTP2_HEADER_METHOD]: "CONNECT",
          [constants.HTTP2_HEADER_AUTHORITY]: attempt.authority,
        },
        { endStream: false },
      );
      stream.on("error", reject);
      stream.on("response", (headers) => {
        resolve({ status: Number(headers[":status"]) });
        session.destroy();
      });
    });
  });
}

const attempt = (await json(process.stdin)) as CertificateAttempt | TunnelAttempt;
const outcome = await (attempt.kind === "certificate"
  ? askForCertificate(attempt)
  : openTunnel(attempt)
).catch((error: unknown): Outcome => ({ error: reasonOf(error) }));
process.stdout.write(`${JSON.stringify(outcome)}\n`);
