import type { CertificateServerEvent } from "#wire/ca/server.ts";
import type { DiscoveryServerEvent } from "#wire/xds/server.ts";
import type { ServerCertificateEvent } from "../authority/server-certificate.ts";
import type { CatalogEvent } from "./catalog.ts";

/** Everything worth a log line or a metric that happens while control serves its nodes. */
export type ServeEvent =
  | DiscoveryServerEvent
  | CertificateServerEvent
  | ServerCertificateEvent
  | CatalogEvent;

export interface EventDescription {
  readonly level: "debug" | "info" | "warn" | "error";
  readonly message: string;
}

/** The event as a log line; the event's own fields belong beside it. */
export function describeServeEvent(event: ServeEvent): EventDescription {
  switch (event.kind) {
    case "subscribed":
      return info(`node "${event.node}" subscribed to ${shortType(event.typeUrl)}`);
    case "pushed":
      return {
        level: "debug",
        message:
          `sent node "${event.node}" ${shortType(event.typeUrl)}: ` +
          `${event.changed} changed, ${event.removed} removed`,
      };
    case "rejected":
      return warning(`node "${event.node}" rejected ${shortType(event.typeUrl)}: ${event.reason}`);
    case "streamEnded":
      return info(`discovery stream of node "${event.node}" ended: ${event.reason}`);
    case "callerRefused":
      return warning(`refused caller ${event.peer}: ${event.reason}`);
    case "certificateIssued":
      return info(`signed for node "${event.node}": ${event.identity}`);
    case "certificateRefused":
      return warning(`refused node "${event.node}" a certificate: ${event.reason}`);
    case "serverCertificateRenewed":
      return info(`server certificate is good until ${new Date(event.notAfterMs).toISOString()}`);
    case "serverCertificateNotRenewed":
      return failure(`could not renew the server certificate: ${event.reason}`);
    case "notEncoded":
      return failure(
        `could not encode ${shortType(event.typeUrl)} "${event.name}": ${event.reason}`,
      );
  }
}

function info(message: string): EventDescription {
  return { level: "info", message };
}

function warning(message: string): EventDescription {
  return { level: "warn", message };
}

function failure(message: string): EventDescription {
  return { level: "error", message };
}

function shortType(typeUrl: string): string {
  return typeUrl.slice(typeUrl.lastIndexOf(".") + 1);
}
