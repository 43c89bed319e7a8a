/** The resource types of workload discovery, by the name they have on the wire. */
export const ADDRESS_TYPE = "type.googleapis.com/istio.workload.Address";
export const AUTHORIZATION_TYPE = "type.googleapis.com/istio.security.Authorization";

/** Workloads without services: what clients asked for before there was `Address`. */
export const LEGACY_WORKLOAD_TYPE = "type.googleapis.com/istio.workload.Workload";

/**
 * Both types in the order they are asked for and sent: a policy has to arrive before the workload
 * that names it.
 */
export const DISCOVERY_TYPES = [AUTHORIZATION_TYPE, ADDRESS_TYPE] as const;
export type DiscoveryType = (typeof DISCOVERY_TYPES)[number];

export function isDiscoveryType(typeUrl: string): typeUrl is DiscoveryType {
  return typeUrl === ADDRESS_TYPE || typeUrl === AUTHORIZATION_TYPE;
}
