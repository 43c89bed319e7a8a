/**
 * Which kinds of object mean something to the mesh, and which of those this release serves.
 *
 * Only groups that the mesh knows are judged: a `Service` of another group is another thing.
 */

/**
 * - `served`: it takes effect
 * - `later`: it would mean something to a mesh, but not to this release
 * - `ignored`: not for the mesh
 * - `unknown`: its group is one of the mesh's, but has no such kind or version
 */
export type Standing =
  | { readonly kind: "served"; readonly served: ServedKind }
  | { readonly kind: "later" }
  | { readonly kind: "ignored" }
  | { readonly kind: "unknown"; readonly reason: string };

export type ServedKind =
  | "Namespace"
  | "Node"
  | "Pod"
  | "Service"
  | "ServiceAccount"
  | "EndpointSlice"
  | "AuthorizationPolicy"
  | "PeerAuthentication";

interface Group {
  readonly versions: readonly string[];
  readonly served: readonly ServedKind[];
  readonly later: readonly string[];
  readonly ignored: readonly string[];
}

const CORE_KINDS_IGNORED = [
  "Binding",
  "ComponentStatus",
  "ConfigMap",
  // The endpoints of a Service are read from its EndpointSlices, of which these are a copy.
  "Endpoints",
  "Event",
  "LimitRange",
  "PersistentVolume",
  "PersistentVolumeClaim",
  "PodTemplate",
  "ReplicationController",
  "ResourceQuota",
  "Secret",
] as const;

const GROUPS: ReadonlyMap<string, Group> = new Map([
  [
    "",
    {
      versions: ["v1"],
      served: ["Namespace", "Node", "Pod", "Service", "ServiceAccount"],
      later: [],
      ignored: CORE_KINDS_IGNORED,
    },
  ],
  ["discovery.k8s.io", { versions: ["v1"], served: ["EndpointSlice"], later: [], ignored: [] }],
  [
    "security.istio.io",
    {
      versions: ["v1", "v1beta1"],
      served: ["AuthorizationPolicy", "PeerAuthentication"],
      later: ["RequestAuthentication"],
      ignored: [],
    },
  ],
  [
    "networking.istio.io",
    {
      versions: ["v1", "v1beta1", "v1alpha3"],
      served: [],
      later: [
        "DestinationRule",
        "EnvoyFilter",
        "Gateway",
        "ProxyConfig",
        "ServiceEntry",
        "Sidecar",
        "VirtualService",
        "WorkloadEntry",
        "WorkloadGroup",
      ],
      ignored: [],
    },
  ],
  [
    "telemetry.istio.io",
    { versions: ["v1", "v1alpha1"], served: [], later: ["Telemetry"], ignored: [] },
  ],
  [
    "extensions.istio.io",
    {
      versions: ["v1alpha1"],
      served: [],
      later: ["TrafficExtension", "WasmPlugin"],
      ignored: [],
    },
  ],
  [
    "gateway.networking.k8s.io",
    {
      versions: ["v1", "v1beta1", "v1alpha3", "v1alpha2"],
      served: [],
      later: [
        "BackendTLSPolicy",
        "GRPCRoute",
        "Gateway",
        "GatewayClass",
        "HTTPRoute",
        "ListenerSet",
        "ReferenceGrant",
        "TCPRoute",
        "TLSRoute",
        "UDPRoute",
      ],
      ignored: [],
    },
  ],
]);

const WITHOUT_NAMESPACE: readonly string[] = ["Namespace", "Node", "GatewayClass"];

export function standingOf(apiVersion: string, kind: string): Standing {
  const { group: groupName, version } = splitApiVersion(apiVersion);
  const group = GROUPS.get(groupName);
  if (!group || group.ignored.includes(kind)) return { kind: "ignored" };
  const served = group.served.find((name) => name === kind);
  if (served === undefined && !group.later.includes(kind)) {
    return { kind: "unknown", reason: unknownKindReason(apiVersion, kind) };
  }
  if (!group.versions.includes(version)) {
    const known = group.versions.map((name) => `"${formatApiVersion(groupName, name)}"`);
    const reason = `"${apiVersion}" is not known, known are ${known.join(", ")}`;
    return { kind: "unknown", reason };
  }
  return served === undefined ? { kind: "later" } : { kind: "served", served };
}

/** Of a kind that is not ignored. */
export function isNamespaced(kind: string): boolean {
  return !WITHOUT_NAMESPACE.includes(kind);
}

export function splitApiVersion(apiVersion: string): { group: string; version: string } {
  const slash = apiVersion.indexOf("/");
  return slash < 0
    ? { group: "", version: apiVersion }
    : { group: apiVersion.slice(0, slash), version: apiVersion.slice(slash + 1) };
}

function formatApiVersion(group: string, version: string): string {
  return group === "" ? version : `${group}/${version}`;
}

/** Names the place where the kind does exist, since a wrong group is the likelier mistake. */
function unknownKindReason(apiVersion: string, kind: string): string {
  const reason = `"${apiVersion}" has no kind "${kind}"`;
  for (const [name, group] of GROUPS) {
    if ([...group.served, ...group.later].includes(kind)) {
      return `${reason}, it belongs to "${formatApiVersion(name, group.versions[0] ?? "")}"`;
    }
  }
  return reason;
}
