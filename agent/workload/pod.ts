import type { Brand } from "#core/brand.ts";
import { MeshError } from "#core/errors.ts";
import { type IpAddress, isIpv4, parseIp } from "#core/ip.ts";
import { type PodStrictEgress, parseProbePorts, parseStrictEgress } from "./pod-guard.ts";

/** Kubernetes' uid of a pod: a new pod of the same name has another. */
export type PodUid = Brand<string, "PodUid">;

/** A pod of this node that is, or is to be, part of the mesh. */
export interface Pod {
  readonly uid: PodUid;
  readonly name: string;
  readonly namespace: string;
  readonly serviceAccount: string;
  /** One or two: not more than one of a family. */
  readonly addresses: readonly IpAddress[];
  /** Path of its network namespace. */
  readonly netns: string;
  /** What whoever made the pod says of its name resolution. */
  readonly dns?: PodDnsSettings;
  /** Those on which the node's prober reaches the pod, whatever its policies say. */
  readonly probePorts?: readonly number[];
  /** Absent: what the pod sends past the capture is left alone. */
  readonly strictEgress?: PodStrictEgress;
}

/** Each is optional: what is absent is as the kubelet would have it by default. */
export interface PodDnsSettings {
  /** False leaves the pod's queries alone (annotation `ambient.istio.io/dns-capture`). */
  readonly capture?: boolean;
  /** As in its resolv.conf. */
  readonly searchDomains?: readonly string[];
  /** As in its resolv.conf: those that are answered over TCP too. */
  readonly nameservers?: readonly IpAddress[];
}

/** bpffs, where the uid names a directory, takes no dots; a slash would leave the directory. */
const UID = /^[A-Za-z0-9_-]{1,64}$/;

/** Names of Kubernetes objects (RFC 1123 subdomain), which also stand in identities and logs. */
const NAME = /^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$/;

const KNOWN_FIELDS = [
  ...["name", "namespace", "serviceAccount", "addresses", "netns", "pid"],
  ...["dns", "probePorts", "strictEgress"],
];
const KNOWN_DNS_FIELDS = ["capture", "searchDomains", "nameservers"];

/** glibc reads three servers and six search domains of 256 characters; newer ones read more. */
const SEARCH_DOMAINS_MAX = 32;
const NAMESERVERS_MAX = 4;
/** A domain (RFC 1123), where one dot at the end is right. */
const DOMAIN = /^[A-Za-z0-9_]([A-Za-z0-9_.-]{0,251}[A-Za-z0-9_])?\.?$/;

/** @throws MeshError `REQUEST_REFUSED` */
export function parsePodUid(text: string): PodUid {
  if (!UID.test(text)) {
    const reason = "expected 1 to 64 letters, digits, dashes and underscores";
    throw new MeshError("REQUEST_REFUSED", `Cannot read pod uid "${text}": ${reason}`);
  }
  return text as PodUid;
}

/**
 * Reads the body of `PUT /v1/pods/<uid>`.
 *
 * @throws MeshError `REQUEST_REFUSED`, which names the field
 */
export function parsePod(uid: PodUid, body: unknown): Pod {
  const refuse = (reason: string): never => {
    throw new MeshError("REQUEST_REFUSED", `Cannot enrol pod "${uid}": ${reason}`);
  };
  if (typeof body !== "object" || body === null || Array.isArray(body)) {
    return refuse("the body is no object");
  }
  const fields: Readonly<Record<string, unknown>> = { ...body };
  const unknownField = Object.keys(fields).find((field) => !KNOWN_FIELDS.includes(field));
  if (unknownField !== undefined) return refuse(`unknown field "${unknownField}"`);
  const nameIn = (field: string): string => {
    const value = fields[field];
    if (typeof value === "string" && NAME.test(value)) return value;
    return refuse(`"${field}" is not a name: ${JSON.stringify(value)}`);
  };
  return {
    uid,
    name: nameIn("name"),
    namespace: nameIn("namespace"),
    serviceAccount: nameIn("serviceAccount"),
    addresses: parseAddresses(fields.addresses, refuse),
    netns: parseNetns(fields.netns, fields.pid, refuse),
    ...parseOptional(fields, refuse),
  };
}

/** Those of a pod's fields that may be absent. */
export function parseOptional(
  { dns, probePorts, strictEgress }: Readonly<Record<string, unknown>>,
  refuse: (reason: string) => never,
): Pick<Pod, "dns" | "probePorts" | "strictEgress"> {
  return {
    ...(dns !== undefined && { dns: parsePodDns(dns, refuse) }),
    ...(probePorts !== undefined && { probePorts: parseProbePorts(probePorts, refuse) }),
    ...(strictEgress !== undefined && { strictEgress: parseStrictEgress(strictEgress, refuse) }),
  };
}

/** @param refuse  is told why the value cannot be */
function parsePodDns(value: unknown, refuse: (reason: string) => never): PodDnsSettings {
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    return refuse('"dns" is no object');
  }
  const fields: Readonly<Record<string, unknown>> = { ...value };
  const unknownField = Object.keys(fields).find((field) => !KNOWN_DNS_FIELDS.includes(field));
  if (unknownField !== undefined) return refuse(`unknown field "dns.${unknownField}"`);
  const { capture, searchDomains, nameservers } = fields;
  if (capture !== undefined && typeof capture !== "boolean") {
    return refuse('"dns.capture" is neither true nor false');
  }
  const textsIn = (field: string, list: unknown, max: number): readonly string[] => {
    if (!Array.isArray(list) || !list.every((text) => typeof text === "string")) {
      return refuse(`"dns.${field}" is no list of texts`);
    }
    return list.length <= max ? list : refuse(`"dns.${field}" has more than ${max} entries`);
  };
  return {
    ...(capture !== undefined && { capture }),
    ...(searchDomains !== undefined && {
      searchDomains: textsIn("searchDomains", searchDomains, SEARCH_DOMAINS_MAX).map((text) =>
        DOMAIN.test(text) ? text : refuse(`"dns.searchDomains" holds "${text}"`),
      ),
    }),
    ...(nameservers !== undefined && {
      nameservers: textsIn("nameservers", nameservers, NAMESERVERS_MAX).map((text) => {
        try {
          return parseIp(text);
        } catch {
          return refuse(`"dns.nameservers" holds "${text}", which is no IP address`);
        }
      }),
    }),
  };
}

function parseAddresses(value: unknown, refuse: (reason: string) => never): readonly IpAddress[] {
  if (!Array.isArray(value) || value.length === 0) return refuse('"addresses" has no address');
  const addresses = value.map((text) => {
    if (typeof text !== "string") return refuse('"addresses" holds something other than text');
    try {
      return parseIp(text);
    } catch {
      return refuse(`"addresses" holds "${text}", which is no IP address`);
    }
  });
  const ofIpv4 = addresses.filter(isIpv4).length;
  if (ofIpv4 > 1 || addresses.length - ofIpv4 > 1) {
    return refuse('"addresses" holds two of one family');
  }
  return addresses;
}

function parseNetns(netns: unknown, pid: unknown, refuse: (reason: string) => never): string {
  if (netns !== undefined && pid !== undefined) return refuse('give "netns" or "pid", not both');
  if (typeof netns === "string" && netns.startsWith("/")) return netns;
  if (netns !== undefined) return refuse('"netns" is not an absolute path');
  if (typeof pid === "number" && Number.isInteger(pid) && pid > 0) return `/proc/${pid}/ns/net`;
  return refuse('"netns" or "pid" is missing');
}
