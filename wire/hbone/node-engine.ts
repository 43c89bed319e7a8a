import type { TunnelEngine } from "./engine.ts";
import type { HboneSettings } from "./settings.ts";

/**
 * The tunnel over node:tls and node:http2.
 *
 * @param settings  those that differ from `DEFAULT_HBONE_SETTINGS`
 */
export function createHboneEngine(settings: Partial<HboneSettings> = {}): TunnelEngine {
  throw new Error(
    `Cannot make a tunnel with ${Object.keys(settings).length} settings: not written`,
  );
}
