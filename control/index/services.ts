import { type IpAddress, isIpv4 } from "#core/ip.ts";
import type { Service } from "#core/service/service.ts";
import { type ServiceKey, serviceKeyOf } from "#core/service/workload.ts";
import type { Placed, ServiceObject } from "../resources/objects.ts";
import type { Problem } from "../source/problem.ts";
import { formatId, formatPath } from "../source/source.ts";
import type { Memo } from "./memo.ts";

/** Where services are found by name. Kubernetes' default, and Istio's. */
const DNS_SUFFIX = "svc.cluster.local";

/** Which service an address belongs to, by the service's key. */
export type AddressOwners = ReadonlyMap<IpAddress, ServiceKey>;

export interface BuiltServices {
  readonly services: ReadonlyMap<ServiceKey, Service>;
  readonly owners: AddressOwners;
  readonly problems: readonly Problem[];
}

export function keyOfService({ namespace, name }: { namespace: string; name: string }): ServiceKey {
  return serviceKeyOf(namespace, hostnameOf(namespace, name));
}

function hostnameOf(namespace: string, name: string): string {
  return `${name}.${namespace}.${DNS_SUFFIX}`;
}

/**
 * @param previousOwners  as of the last time: whoever has an address and still wants it keeps it,
 *   so that a mistake in one service never takes down another
 */
export function buildServices(
  objects: Iterable<Placed<ServiceObject>>,
  network: string,
  previousOwners: AddressOwners,
  memo: Memo<Service>,
): BuiltServices {
  const placed = [...objects].filter(({ object }) => object.type !== "externalName");
  const owners = settleOwners(placed, previousOwners);
  const byKey = new Map(placed.map((item) => [keyOfService(item.object), item]));
  const services = new Map<ServiceKey, Service>();
  const problems: Problem[] = [];
  for (const [key, item] of byKey) {
    const { object } = item;
    const own = object.virtualIps.filter((ip) => owners.get(ip) === key);
    for (const ip of object.virtualIps) {
      const owner = byKey.get(owners.get(ip) ?? key);
      if (owner && owner !== item) problems.push(conflictProblem(item, ip, owner));
    }
    const service = memo.get(key, [object, network, own.join()], () =>
      serviceOf(object, key, own, network),
    );
    services.set(key, service);
  }
  return { services, owners, problems };
}

/** Each address to who had it before, or else to who came first. */
function settleOwners(
  placed: readonly Placed<ServiceObject>[],
  previous: AddressOwners,
): Map<IpAddress, ServiceKey> {
  const owners = new Map<IpAddress, ServiceKey>();
  for (const { object } of placed) {
    const key = keyOfService(object);
    for (const ip of object.virtualIps) {
      if (!owners.has(ip) || previous.get(ip) === key) owners.set(ip, key);
    }
  }
  return owners;
}

function serviceOf(
  object: ServiceObject,
  key: ServiceKey,
  addresses: readonly IpAddress[],
  network: string,
): Service {
  const { name, namespace } = object;
  return {
    key,
    name,
    namespace,
    hostname: hostnameOf(namespace, name),
    addresses: addresses.map((address) => ({
      network,
      block: { address, length: isIpv4(address) ? 32 : 128 },
    })),
    ports: object.ports.map(({ port, target, appProtocol }) => ({
      port,
      targetPort: target.kind === "number" ? target.port : 0,
      appProtocol,
    })),
    subjectAltNames: [],
    waypoint: undefined,
    weightedWaypoints: [],
    loadBalancing: object.loadBalancing,
    ipFamilies: object.ipFamilies,
    canonical: true,
    visibility: object.visibility,
    sessionAffinityMs: object.sessionAffinityMs,
  };
}

function conflictProblem(
  later: Placed<ServiceObject>,
  ip: IpAddress,
  first: Placed<ServiceObject>,
): Problem {
  const path = ["spec", "clusterIP"];
  const other = formatId({ group: "", ...first.object });
  const place = `${first.origin.file}:${first.origin.line}`;
  return {
    origin: { file: later.origin.file, line: later.lineOf(path) },
    object: formatId({ group: "", ...later.object }),
    field: formatPath(path),
    reason: `address ${ip} belongs to ${other} (${place}); it is not served for this service`,
    effect: "partly",
  };
}
