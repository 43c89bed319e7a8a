/**
 * What a name means to a pod: which addresses the mesh answers a DNS question with.
 */
import { type IpAddress, isIpv4 } from "../ip.ts";
import type { MeshIndex } from "./mesh-index.ts";
import { type Service, virtualIpsOf } from "./service.ts";
import type { Workload } from "./workload.ts";

/** The domain of a cluster's services, unless it was set up with another one. */
const CLUSTER_DOMAIN_DEFAULT = "cluster.local";

export interface NameQuestion {
  /** The workload that asks. */
  readonly client: Workload;
  /** As in the question, in any case, with or without the dot at the end. */
  readonly name: string;
  readonly family: "ipv4" | "ipv6";
  /** Of the pod's own resolv.conf, in order. */
  readonly searchDomains: readonly string[];
  readonly clusterDomain?: string;
  /** In [0, 1): puts the addresses of several pods in another order each time. */
  readonly random: () => number;
}

export type NameAnswer =
  | {
      readonly kind: "known";
      /** The name that was found, without a dot at the end: another one needs a CNAME to it. */
      readonly hostname: string;
      /** None where the name has no address of this family: that is an answer too. */
      readonly addresses: readonly IpAddress[];
    }
  /** Not of the mesh: for the nameservers that the node asks. */
  | { readonly kind: "unknown" };

/**
 * Finds the service that `name` means: by the name itself, as a short form of a cluster name, then
 * without a search domain that the pod's resolver put behind it, and last by a wildcard host.
 */
export function resolveName(index: MeshIndex, question: NameQuestion): NameAnswer {
  const { client } = question;
  const domain = question.clusterDomain ?? CLUSTER_DOMAIN_DEFAULT;
  const name = question.name.toLowerCase().replace(/\.$/, "");
  for (const candidate of candidates(name, question.searchDomains)) {
    for (const hostname of fullNames(candidate, client.namespace, domain)) {
      const service = index.serviceNamed(hostname, client.namespace);
      const addresses = service && addressesOf(index, service, question, domain);
      if (addresses) return { kind: "known", hostname: candidate, addresses };
    }
  }
  return byWildcard(index, name, question, domain);
}

/** The name, and what it is without each search domain that it ends in. */
function candidates(name: string, searchDomains: readonly string[]): readonly string[] {
  const stripped = searchDomains
    .map((domain) => `.${domain.toLowerCase().replace(/\.$/, "")}`)
    .filter((suffix) => suffix !== "." && name.endsWith(suffix))
    .map((suffix) => name.slice(0, -suffix.length));
  return [name, ...stripped].filter((candidate) => candidate !== "");
}

/** Every name that a short form may stand for: `web`, `web.shop`, `web.shop.svc`. */
function fullNames(name: string, namespace: string, domain: string): readonly string[] {
  const labels = name.split(".").length;
  const short =
    labels === 1
      ? [`${name}.${namespace}.svc.${domain}`]
      : labels === 2
        ? [`${name}.svc.${domain}`]
        : labels === 3 && name.endsWith(".svc")
          ? [`${name}.${domain}`]
          : [];
  return [name, ...short];
}

function byWildcard(
  index: MeshIndex,
  name: string,
  question: NameQuestion,
  domain: string,
): NameAnswer {
  const labels = name.split(".");
  for (let cut = 1; cut < labels.length; cut++) {
    const host = `*.${labels.slice(cut).join(".")}`;
    const service = index.serviceNamed(host, question.client.namespace);
    const addresses = service && addressesOf(index, service, question, domain);
    if (addresses) return { kind: "known", hostname: name, addresses };
  }
  return { kind: "unknown" };
}

/** @returns undefined where the service has nothing that DNS could say */
function addressesOf(
  index: MeshIndex,
  service: Service,
  question: NameQuestion,
  domain: string,
): readonly IpAddress[] | undefined {
  const isOfFamily = (ip: IpAddress) => isIpv4(ip) === (question.family === "ipv4");
  const virtual = virtualIpsOf(service, question.client.network);
  if (virtual.length > 0) return virtual.filter(isOfFamily);
  // Without an address of its own it is headless if it is of the cluster; elsewhere its name is
  // known to the world's nameservers only.
  if (!service.hostname.endsWith(`.svc.${domain}`)) return undefined;
  const allowsAll = service.loadBalancing?.healthPolicy === "allowAll";
  const pods = index
    .endpointsOf(service.key)
    .filter(({ healthy, network }) => (healthy || allowsAll) && network === question.client.network)
    .flatMap(({ addresses }) => addresses.filter(isOfFamily));
  return shuffled(pods, question.random);
}

/** Fisher and Yates: each order is as likely as any other. */
function shuffled<Value>(values: readonly Value[], random: () => number): readonly Value[] {
  const result = [...values];
  for (let last = result.length - 1; last > 0; last--) {
    const other = Math.floor(random() * (last + 1));
    const moved = result[last] as Value; // both lie within the array
    result[last] = result[other] as Value;
    result[other] = moved;
  }
  return result;
}
