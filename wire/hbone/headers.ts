/** Between the headers of node:http2 and those of the engine's face. */
import type { IncomingHttpHeaders, OutgoingHttpHeaders } from "node:http2";

/** Headers without pseudo-headers; names are in lower case already (RFC 9113, 8.2.1). */
export function readHeaders(headers: IncomingHttpHeaders): ReadonlyMap<string, string> {
  const read = new Map<string, string>();
  for (const [name, value] of Object.entries(headers)) {
    if (name.startsWith(":") || value === undefined) continue;
    read.set(name, Array.isArray(value) ? value.join(", ") : value);
  }
  return read;
}

/** The value of a pseudo-header, empty where there is none. */
export function pseudoHeader(headers: IncomingHttpHeaders, name: string): string {
  const value = headers[name];
  return typeof value === "string" ? value : "";
}

/** The inverse: pseudo-headers first, as they are to be sent. */
export function writeHeaders(
  pseudoHeaders: OutgoingHttpHeaders,
  headers: ReadonlyMap<string, string>,
): OutgoingHttpHeaders {
  const written: OutgoingHttpHeaders = { ...pseudoHeaders };
  for (const [name, value] of headers) written[name] = value;
  return written;
}
