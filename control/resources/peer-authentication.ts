/**
 * PeerAuthentication: whether a workload takes plaintext.
 *
 * @see https://istio.io/latest/docs/reference/config/security/peer_authentication/
 */
import type { Field } from "./field.ts";
import { readSelector } from "./metadata.ts";
import type { MutualTlsMode, PeerAuthenticationObject } from "./objects.ts";
import type { Reading } from "./reading.ts";

/** A receiver cannot be told to refuse mutual TLS, so DISABLE lets both in, as in Istio. */
const MODES = {
  UNSET: "unset",
  DISABLE: "permissive",
  PERMISSIVE: "permissive",
  STRICT: "strict",
} as const;

export interface PeerAuthenticationReading {
  readonly object: PeerAuthenticationObject;
  /** In force where there are mistakes, and no earlier version without. */
  readonly substitute: PeerAuthenticationObject;
}

export function interpretPeerAuthentication(reading: Reading): PeerAuthenticationReading {
  const { root, metadata, remarks, settings } = reading;
  root.only(["apiVersion", "kind", "metadata", "spec", "status"]);
  const spec = root.get("spec").only(["mtls", "portLevelMtls", "selector"]);

  const labels = spec.get("selector").apart(readSelector);
  // A selector that cannot be read may mean any workload of its namespace.
  const selector = labels.isGood ? labels.value : undefined;

  const ports = spec.get("portLevelMtls");
  const portModes = readPortModes(ports);
  if (ports.isPresent && portModes.size === 0) ports.complain("is empty");
  if (portModes.size > 0 && !selector) {
    ports.complain("ports can be named only where a selector names workloads");
  }
  if (selector && metadata.namespace === settings.rootNamespace) {
    const reason = "has no effect in the root namespace, as in Istio: leave out the selector there";
    remarks.push({ path: ["spec", "selector"], reason });
  }
  const base = { kind: "PeerAuthentication", ...metadata, selector } as const;
  const mode = readMode(spec.get("mtls"));
  return {
    object: { ...base, mode, portModes, failsClosed: false },
    substitute: { ...base, mode: "strict", portModes: new Map(), failsClosed: true },
  };
}

function readMode(field: Field): MutualTlsMode {
  const mode = field.only(["mode"]).get("mode").oneOf(["UNSET", "DISABLE", "PERMISSIVE", "STRICT"]);
  return mode === undefined ? "unset" : MODES[mode];
}

function readPortModes(field: Field): ReadonlyMap<number, MutualTlsMode> {
  const modes = new Map<number, MutualTlsMode>();
  for (const [name, item] of field.entries()) {
    const port = Number(name);
    const isPort = /^[1-9]\d{0,4}$/.test(name) && port <= 65_535;
    if (!isPort) item.complain("expected a port from 1 to 65535");
    const mode = readMode(item);
    if (isPort) modes.set(port, mode);
  }
  return modes;
}
