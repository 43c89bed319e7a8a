import { type IpAddress, isIpv4, type SocketAddress } from "../ip.ts";
import type { LoadBalancing, RoutingScope, Service } from "./service.ts";
import type { Workload, WorkloadUid } from "./workload.ts";

/** What the choice of an endpoint depends on besides the service and its endpoints. */
export interface ChoiceContext {
  /** The workload that connects. */
  readonly client: Workload;
  /** The port of the service that it dialled. */
  readonly servicePort: number;
  /** The address it dialled: an endpoint's address of the same family is preferred. */
  readonly dialled: IpAddress;
  /** Endpoints already tried in vain for this connection. */
  readonly tried: ReadonlySet<WorkloadUid>;
  /** Connections that this node has open to an endpoint. */
  readonly outstanding: (uid: WorkloadUid) => number;
  /** In [0, 1). */
  readonly random: () => number;
}

export interface Endpoint {
  readonly workload: Workload;
  /** Undefined where the endpoint has no address in the client's network. */
  readonly address: SocketAddress | undefined;
  readonly port: number;
}

/**
 * Chooses the endpoint for one connection to `service`.
 *
 * Of the endpoints that can take the connection, those count that share the most of what
 * `routingPreference` asks for with the client. Of these two are drawn, weighted by capacity, and
 * the one with fewer open connections per unit of capacity wins ("the power of two choices").
 *
 * @returns undefined where no endpoint is left
 */
export function chooseEndpoint(
  service: Service,
  endpoints: readonly Workload[],
  context: ChoiceContext,
): Endpoint | undefined {
  const untried = endpoints.filter(({ uid }) => !context.tried.has(uid));
  const near = eligibleEndpoints(service, untried, context);
  const first = draw(near, context.random);
  if (first === undefined || near.length === 1) return first;
  const second = draw(
    near.filter((endpoint) => endpoint !== first),
    context.random,
  );
  return second !== undefined && load(second, context) < load(first, context) ? second : first;
}

/** Those of `endpoints` that one is drawn from. */
export function eligibleEndpoints(
  service: Service,
  endpoints: readonly Workload[],
  context: Pick<ChoiceContext, "client" | "servicePort" | "dialled">,
): readonly Endpoint[] {
  const usable = endpoints
    .filter((workload) => isAllowed(service, workload))
    .map((workload) => toEndpoint(service, workload, context))
    .filter((endpoint) => endpoint !== undefined);
  return nearest(usable, service.loadBalancing, context.client);
}

/** The endpoint's own port for a port of the service; 0 where it does not offer it. */
export function targetPortOf(service: Service, workload: Workload, servicePort: number): number {
  const own = workload.services.get(service.key)?.get(servicePort);
  if (own !== undefined && own !== 0) return own;
  const port = service.ports.find((candidate) => candidate.port === servicePort);
  if (port === undefined) return 0;
  if (port.targetPort !== 0) return port.targetPort;
  return workload.applicationTunnel === undefined ? 0 : servicePort;
}

/** One of the workload's addresses: of the families allowed, that of `dialled` where it can be. */
export function addressOf(
  workload: Workload,
  dialled: IpAddress,
  families: Service["ipFamilies"],
): IpAddress | undefined {
  const allowed = workload.addresses.filter((ip) => {
    if (families === "ipv4Only") return isIpv4(ip);
    return families !== "ipv6Only" || !isIpv4(ip);
  });
  return allowed.find((ip) => isIpv4(ip) === isIpv4(dialled)) ?? allowed[0];
}

function isAllowed(service: Service, workload: Workload): boolean {
  return workload.healthy || service.loadBalancing?.healthPolicy === "allowAll";
}

function toEndpoint(
  service: Service,
  workload: Workload,
  context: Pick<ChoiceContext, "client" | "servicePort" | "dialled">,
): Endpoint | undefined {
  const port = targetPortOf(service, workload, context.servicePort);
  if (port === 0) return undefined;
  const ip = addressOf(workload, context.dialled, service.ipFamilies);
  const isElsewhere = workload.network !== context.client.network;
  if (ip === undefined && workload.hostname === "") {
    return isElsewhere && workload.networkGateway !== undefined
      ? { workload, address: undefined, port }
      : undefined;
  }
  return { workload, address: ip === undefined ? undefined : { ip, port }, port };
}

function nearest(
  endpoints: readonly Endpoint[],
  balancing: LoadBalancing | undefined,
  client: Workload,
): readonly Endpoint[] {
  const scopes = balancing?.routingPreference ?? [];
  if (balancing === undefined || scopes.length === 0) return endpoints;
  if (balancing.mode === "strict") {
    return endpoints.filter(({ workload }) => scopes.every((s) => shares(s, client, workload)));
  }
  const ranked = endpoints.map((endpoint) => ({
    endpoint,
    rank: rankOf(scopes, client, endpoint.workload),
  }));
  const rankMax = Math.max(...ranked.map(({ rank }) => rank));
  return ranked.filter(({ rank }) => rank === rankMax).map(({ endpoint }) => endpoint);
}

/**
 * How many of the scopes match, up to the first that does not. The network as first scope comes
 * before all others: the same one outweighs them together, another one does not stop the count.
 */
function rankOf(scopes: readonly RoutingScope[], client: Workload, workload: Workload): number {
  const [first, ...rest] = scopes;
  if (first !== "network") return leading(scopes, client, workload);
  const isSame = shares("network", client, workload);
  return (isSame ? 1 + rest.length : 0) + leading(rest, client, workload);
}

function leading(scopes: readonly RoutingScope[], client: Workload, workload: Workload): number {
  const miss = scopes.findIndex((scope) => !shares(scope, client, workload));
  return miss < 0 ? scopes.length : miss;
}

function shares(scope: RoutingScope, client: Workload, workload: Workload): boolean {
  switch (scope) {
    case "network":
      return client.network === workload.network;
    case "cluster":
      return client.clusterId === workload.clusterId;
    case "node":
      return client.node === workload.node;
    case "region":
    case "zone":
    case "subzone":
      return client.locality[scope] === workload.locality[scope];
  }
}

/** One at random, each as likely as its share of the capacity. */
function draw(endpoints: readonly Endpoint[], random: () => number): Endpoint | undefined {
  const total = endpoints.reduce((sum, { workload }) => sum + workload.capacity, 0);
  let rest = random() * total;
  for (const endpoint of endpoints) {
    rest -= endpoint.workload.capacity;
    if (rest < 0) return endpoint;
  }
  return undefined;
}

function load({ workload }: Endpoint, context: ChoiceContext): number {
  return context.outstanding(workload.uid) / workload.capacity;
}
