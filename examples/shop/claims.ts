/** What the demo says of the mesh, each held against what was recorded. */
import type { AccessRecord } from "./access-log.ts";
import type { Segment } from "./capture.ts";

export interface Evidence {
  readonly records: readonly AccessRecord[];
  /** TCP payloads that went between the nodes. */
  readonly segments: readonly Segment[];
  /** What the payments service printed: a line for each request that reached it. */
  readonly paymentsLog: readonly string[];
  /** What the callers outside of the shop printed, a line for each attempt. */
  readonly thiefLog: readonly string[];
  readonly prowlerLog: readonly string[];
  readonly passerbyLog: readonly string[];
  readonly visitorLog: readonly string[];
  /** Addresses of the cart's pods. */
  readonly cartAddresses: readonly string[];
  readonly firstTunnelSeconds: number | undefined;
  /** Until every pod was ready. */
  readonly bringUpSeconds: number;
  /** Names of nodes. */
  readonly nodes: readonly string[];
}

export interface Claim {
  readonly claim: string;
  readonly holds: boolean;
  /** What was seen, in short. */
  readonly seen: string;
}

/** What the manifests give the shop's programs to send along, and those on the street. */
export const SECRET = "never-in-the-clear";
export const OPEN_WORD = "seen-by-everyone";

const FIRST_TUNNEL_SECONDS_MAX = 10;
const HBONE_PORT = 15_008;
/** ContentType of a TLS record: handshake and application data (RFC 8446, 5.1). */
const TLS_HANDSHAKE = 22;
const TLS_APPLICATION_DATA = 23;

/** Every claim, whether it holds or not. */
export function judge(evidence: Evidence): readonly Claim[] {
  return [
    ...traffic(evidence),
    ...identities(evidence),
    ...wire(evidence),
    ...refusals(evidence),
    firstTunnel(evidence),
  ];
}

function traffic({ records, visitorLog, nodes }: Evidence): readonly Claim[] {
  const served = visitorLog.filter((line) => line.includes('"status":200')).length;
  const failed = visitorLog.filter((line) => line.includes('"error"') || line.includes(":502"));
  const replicas = new Set(
    inbound(records, "shop/catalog")
      .filter(({ error }) => error === undefined)
      .map(({ node }) => node),
  );
  return [
    {
      claim: "the visitor is served, through four services in three languages",
      holds: served > 0 && failed.length === 0,
      seen: `${served} pages served, ${failed.length} failed`,
    },
    {
      claim: "connections spread over the catalog's replicas, one on each node",
      holds: replicas.size === nodes.length,
      seen: `on ${[...replicas].toSorted().join(", ") || "none"}`,
    },
  ];
}

function identities({ records }: Evidence): readonly Claim[] {
  const tunnelled = records.filter(
    ({ direction, tunnelAddress, error }) =>
      direction === "outbound" && tunnelAddress !== undefined && error === undefined,
  );
  const named = tunnelled.filter(
    ({ sourceIdentity, destinationIdentity }) => sourceIdentity && destinationIdentity,
  );
  const told = tunnelled.filter((out) =>
    records.some(
      (other) =>
        other.direction === "inbound" &&
        other.sourceIdentity === out.sourceIdentity &&
        other.destinationIdentity === out.destinationIdentity,
    ),
  );
  return [
    {
      claim: "each tunnelled connection has a proven identity on both sides",
      holds: tunnelled.length > 0 && named.length === tunnelled.length,
      seen: `${named.length} of ${tunnelled.length}`,
    },
    {
      claim: "both ends name the same two identities",
      holds: tunnelled.length > 0 && told.length === tunnelled.length,
      seen: `${told.length} of ${tunnelled.length}`,
    },
  ];
}

function wire({ segments }: Evidence): readonly Claim[] {
  const tunnel = segments.filter(
    ({ sourcePort, destinationPort }) =>
      sourcePort === HBONE_PORT || destinationPort === HBONE_PORT,
  );
  const begins = (type: number) =>
    tunnel.filter(({ payload }) => payload[0] === type && payload[1] === 3).length;
  const leaks = segments.filter(({ payload }) => payload.includes(SECRET)).length;
  const open = segments.filter(({ payload }) => payload.includes(OPEN_WORD)).length;
  const handshakes = begins(TLS_HANDSHAKE);
  const data = begins(TLS_APPLICATION_DATA);
  return [
    {
      claim: "between the nodes the mesh speaks TLS, on port 15008",
      holds: handshakes > 0 && data > 0,
      seen: `${tunnel.length} packets, ${handshakes} begin handshakes and ${data} hold data`,
    },
    {
      claim: "no packet between the nodes shows what the shop's services said",
      holds: segments.length > 0 && leaks === 0,
      seen: `${leaks} of ${segments.length} packets with the word "${SECRET}"`,
    },
    {
      claim: "the capture would have seen it: words from outside the mesh are there to read",
      holds: open > 0,
      seen: `${open} packets with the word "${OPEN_WORD}"`,
    },
  ];
}

function refusals(evidence: Evidence): readonly Claim[] {
  const { records, paymentsLog, thiefLog, prowlerLog, passerbyLog, cartAddresses } = evidence;
  const refused = inbound(records, "bank/payments").filter(({ policy }) => policy !== undefined);
  const by = (pattern: RegExp) => refused.filter(({ policy }) => pattern.test(policy ?? "")).length;
  const reached = (log: readonly string[]) => log.filter((l) => l.includes('"status":200')).length;
  const payers = paymentsLog.filter((line) => line.includes('"payment"'));
  const strangers = payers.filter((line) => !cartAddresses.some((ip) => line.includes(`${ip}"`)));
  return [
    {
      claim: "the policy keeps the thief out, and says so by name",
      holds: thiefLog.length > 0 && reached(thiefLog) === 0 && by(/only-the-cart-pays/) > 0,
      seen: `${reached(thiefLog)} of ${thiefLog.length} attempts got in, ${by(/only-the-cart-pays/)} refusals`,
    },
    {
      claim: "STRICT keeps the prowler out, who has no identity",
      holds: prowlerLog.length > 0 && reached(prowlerLog) === 0 && by(/strict/) > 0,
      seen: `${reached(prowlerLog)} of ${prowlerLog.length} attempts got in`,
    },
    {
      claim: "the passer-by may look at the shop, which is PERMISSIVE",
      holds: reached(passerbyLog) > 0,
      seen: `${reached(passerbyLog)} of ${passerbyLog.length} pages served`,
    },
    {
      claim: "the payments service saw nobody but the cart, with the cart's own address",
      holds: payers.length > 0 && strangers.length === 0,
      seen: `${payers.length} payments, ${strangers.length} from strangers`,
    },
  ];
}

function firstTunnel({ firstTunnelSeconds: seconds, bringUpSeconds }: Evidence): Claim {
  const broughtUp = `every pod was ready after ${bringUpSeconds.toFixed(1)} s`;
  return {
    claim: `the first mTLS connection comes within ${FIRST_TUNNEL_SECONDS_MAX} s of set-up`,
    holds: seconds !== undefined && seconds <= FIRST_TUNNEL_SECONDS_MAX,
    seen:
      seconds === undefined ? "none came" : `${broughtUp}, it came ${seconds.toFixed(1)} s later`,
  };
}

function inbound(records: readonly AccessRecord[], to: string): readonly AccessRecord[] {
  return records.filter(({ direction, to: name }) => {
    return direction === "inbound" && (name === to || name.startsWith(`${to}-`));
  });
}
