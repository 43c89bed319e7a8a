/** gRPC to the control server: TLS with the server's certificate alone, and a bearer token. */
import { isIP } from "node:net";
import { checkServerIdentity, type PeerCertificate } from "node:tls";
import { type ChannelOptions, Client, credentials, Metadata } from "@grpc/grpc-js";
import { MeshError } from "#core/errors.ts";
import type { ControlEndpoint } from "./control-endpoint.ts";
import { MESSAGE_BYTES_MAX } from "./delta-method.ts";

/** A connection that is silently dead is found out after 30 s and 10 s more. */
const KEEPALIVE: ChannelOptions = {
  "grpc.keepalive_time_ms": 30_000,
  "grpc.keepalive_timeout_ms": 10_000,
};

const OPTIONS: ChannelOptions = {
  ...KEEPALIVE,
  "grpc.max_receive_message_length": MESSAGE_BYTES_MAX,
  "grpc.max_send_message_length": MESSAGE_BYTES_MAX,
  // A whole mesh in few round trips; the 64 KiB of HTTP/2 would need one for each 64 KiB.
  "grpc-node.flow_control_window": 4 * 1024 * 1024,
  // Whoever asks decides when to ask again; and a retry keeps all that was sent in memory.
  "grpc.enable_retries": 0,
  // Settings come from our own configuration, not from http_proxy in the environment.
  "grpc.enable_http_proxy": 0,
  "grpc.enable_channelz": 0,
  // Each client has a connection of its own, and closes it.
  "grpc.use_local_subchannel_pool": 1,
};

/**
 * @param rootsPem  undefined for those of the system
 * @throws MeshError `SETTINGS_INVALID` for a URL that is not https
 */
export function createChannel(
  { url, serverName }: ControlEndpoint,
  rootsPem: string | undefined,
): Client {
  if (url.protocol !== "https:") {
    throw new MeshError("SETTINGS_INVALID", `Cannot connect to "${url}": only https is spoken`);
  }
  const roots = rootsPem === undefined ? null : Buffer.from(rootsPem);
  // An IPv6 address has brackets in a URL, and none anywhere else.
  const name = serverName ?? url.hostname.replace(/^\[(.*)\]$/, "$1");
  const verify = (_: string, certificate: PeerCertificate) =>
    checkServerIdentity(name, certificate);
  const secure = credentials.createSsl(roots, null, null, { checkServerIdentity: verify });
  return new Client(`dns:///${url.hostname}:${url.port || "443"}`, secure, {
    ...OPTIONS,
    // An address may not be sent as SNI (RFC 6066, 3), but grpc-js would: Node throws then.
    "grpc.ssl_target_name_override": isIP(name) === 0 ? name : NAME_OF_AN_ADDRESS,
  });
}

/** Sent as SNI where the server is known by its address only. No server has it (RFC 2606, 2). */
const NAME_OF_AN_ADDRESS = "control.invalid";

/** The headers of one call. The token is read now. */
export async function callMetadata({ readToken, headers }: ControlEndpoint): Promise<Metadata> {
  const metadata = new Metadata();
  for (const [name, value] of Object.entries(headers)) metadata.set(name, value);
  const token = await readToken();
  if (token !== undefined) metadata.set("authorization", `Bearer ${token.trim()}`);
  return metadata;
}
