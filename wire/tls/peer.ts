/**
 * Who is at the other end of a TLS connection, as far as its certificate says.
 */
import type { X509Certificate } from "node:crypto";
import type { TLSSocket } from "node:tls";

export type PeerVerdict =
  | { readonly kind: "accepted"; readonly uris: readonly string[] }
  /** The chain does not hold. */
  | { readonly kind: "untrusted"; readonly reason: string }
  /** The chain holds, but the peer is not one that is wanted here. */
  | { readonly kind: "unwanted"; readonly reason: string };

/**
 * Judges the other end of a finished handshake.
 *
 * The socket is to be made with `requestCert: true` and `rejectUnauthorized: false`: where OpenSSL
 * itself hangs up, all that is left to report is a code, while here the certificate is still at
 * hand. So nothing may be read from a socket that was not accepted here.
 *
 * @param refusePeer  why a peer with these URIs is refused, or undefined to accept it
 */
export function judgePeer(
  socket: TLSSocket,
  refusePeer: (uris: readonly string[]) => string | undefined,
): PeerVerdict {
  const certificate = socket.getPeerX509Certificate();
  if (!certificate) return { kind: "untrusted", reason: "it showed no certificate" };
  const uris = urisOf(certificate.subjectAltName ?? "");
  if (!uris) return { kind: "untrusted", reason: "the names in its certificate cannot be read" };
  if (!socket.authorized) {
    const reason = untrustedReason(String(socket.authorizationError), certificate);
    return { kind: "untrusted", reason: `the certificate of ${nameOf(uris)} ${reason}` };
  }
  // A resumed session proves only that it once was somebody; both ends have resumption off.
  if (socket.isSessionReused()) return { kind: "untrusted", reason: "it resumed a session" };
  if (socket.alpnProtocol !== "h2") {
    return { kind: "untrusted", reason: "it did not agree to speak HTTP/2 (ALPN h2)" };
  }
  const reason = refusePeer(uris);
  return reason === undefined ? { kind: "accepted", uris } : { kind: "unwanted", reason };
}

/**
 * Every URI in the text form that node:crypto gives to subject alternative names:
 * `DNS:a, URI:spiffe://b, URI:"with, comma"`.
 *
 * A value with a character that could be mistaken for the structure around it (a comma, a quote,
 * a control character) is written as a JSON string. So a name that holds `, URI:spiffe://` is one
 * name here, and not two.
 *
 * @returns undefined where the text does not have this form to its last character
 * @see https://nodejs.org/api/crypto.html#x509subjectaltname
 */
export function urisOf(subjectAltName: string): readonly string[] | undefined {
  const entry = /([A-Za-z0-9 ]+):("(?:[^"\\]|\\.)*"|[^",]*)(?:, |$)/y;
  const uris: string[] = [];
  while (entry.lastIndex < subjectAltName.length) {
    const match = entry.exec(subjectAltName);
    const [, type, value] = match ?? [];
    if (value === undefined) return undefined;
    if (type !== "URI") continue;
    const uri = value.startsWith('"') ? unquote(value) : value;
    if (uri === undefined) return undefined;
    uris.push(uri);
  }
  // "a, " would be a list whose last entry is missing.
  return subjectAltName.endsWith(", ") ? undefined : uris;
}

function unquote(text: string): string | undefined {
  try {
    return String(JSON.parse(text));
  } catch {
    return undefined;
  }
}

function nameOf(uris: readonly string[]): string {
  return uris.length > 0 ? uris.map((uri) => JSON.stringify(uri)).join(" and ") : "an unnamed peer";
}

/** OpenSSL's verdicts that an operator meets, in the order of their likelihood. */
function untrustedReason(code: string, certificate: X509Certificate): string {
  switch (code) {
    case "CERT_HAS_EXPIRED":
      return `has expired, or its issuer's (valid until ${certificate.validTo})`;
    case "CERT_NOT_YET_VALID":
      return `is not valid yet (from ${certificate.validFrom})`;
    case "UNABLE_TO_VERIFY_LEAF_SIGNATURE":
    case "UNABLE_TO_GET_ISSUER_CERT":
    case "UNABLE_TO_GET_ISSUER_CERT_LOCALLY":
    case "SELF_SIGNED_CERT_IN_CHAIN":
    case "DEPTH_ZERO_SELF_SIGNED_CERT":
    case "CERT_SIGNATURE_FAILURE":
      return `was not issued by a root that is trusted here (${code})`;
    case "INVALID_PURPOSE":
      return "was not issued for this use (extended key usage)";
    default:
      return `does not hold (${code})`;
  }
}
