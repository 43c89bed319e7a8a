/**
 * The names of a cluster.
 *
 * @see https://github.com/kubernetes/dns/blob/master/docs/specification.md
 */
import { type IpAddress, isIpv4 } from "#core/ip.ts";
import type { ServiceObject } from "../object/object.ts";
import { isUsable, type PodView, podsOf } from "../plan/endpoints.ts";

export const CLUSTER_DOMAIN = "cluster.local";

export type Entry =
  | { readonly kind: "addresses"; readonly addresses: readonly IpAddress[] }
  | { readonly kind: "alias"; readonly target: string };

/** By name, in lower case and without the dot at the end. JSON, since it goes to a process. */
export type Zone = Readonly<Record<string, Entry>>;

export interface NamedService {
  readonly service: ServiceObject;
  readonly addresses: readonly IpAddress[];
}

export function zoneOf(services: readonly NamedService[], pods: readonly PodView[]): Zone {
  return Object.fromEntries(
    services.flatMap(({ service, addresses }) => entriesOf(service, addresses, pods)),
  );
}

function entriesOf(
  service: ServiceObject,
  addresses: readonly IpAddress[],
  pods: readonly PodView[],
): readonly (readonly [string, Entry])[] {
  const { namespace, name } = service.metadata;
  const own = `${name}.${namespace}.svc.${CLUSTER_DOMAIN}`;
  switch (service.addressing.kind) {
    case "virtual":
      return [[own, { kind: "addresses", addresses }]];
    case "external":
      return [[own, { kind: "alias", target: service.addressing.hostname }]];
    case "headless": {
      const usable = podsOf(service, pods).filter((pod) => isUsable(service, pod));
      const all = usable.flatMap((pod) => familiesOf(service, pod));
      const each = usable.map((pod): readonly [string, Entry] => {
        const label = pod.hostname ?? pod.addresses.ipv4.replaceAll(".", "-");
        return [`${label}.${own}`, { kind: "addresses", addresses: familiesOf(service, pod) }];
      });
      return [[own, { kind: "addresses", addresses: all }], ...each];
    }
  }
}

function familiesOf(service: ServiceObject, pod: PodView): readonly IpAddress[] {
  return Object.values(pod.addresses).filter((ip: IpAddress) => {
    return service.families.includes(isIpv4(ip) ? "IPv4" : "IPv6");
  });
}
