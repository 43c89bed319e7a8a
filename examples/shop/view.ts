/** What the demo shows: who talked to whom, as whom, by which path, and what was refused. */
import type { AccessRecord } from "./access-log.ts";

export interface Edge {
  readonly from: string;
  readonly to: string;
  readonly path: "mTLS" | "plaintext" | "denied" | "failed";
  /** Of both ends, as the certificates said. */
  readonly identities: string;
  readonly connections: number;
  readonly medianMs: number;
  /** Of a refusal: the policy; of a failure: the reason. */
  readonly because: string;
}

const SAMPLES_MAX = 512;

/** Sums up records, one edge for each pair, path and reason. */
export class Edges {
  readonly #edges = new Map<string, { edge: Edge; samplesMs: number[] }>();

  add(record: AccessRecord): void {
    // An encrypted connection is told by both its ends; what is plaintext only by one of them.
    if (record.direction === "outbound" && isToldAgain(record)) return;
    const path = pathOf(record);
    const because = path === "mTLS" ? "" : (record.policy ?? record.error ?? "");
    const names = [record.from, record.to].map(withoutReplica);
    const key = [...names, path, because].join("|");
    const known = this.#edges.get(key);
    const samplesMs = [...(known?.samplesMs ?? []), record.durationMs].slice(-SAMPLES_MAX);
    const edge = {
      from: withoutReplica(record.from),
      to: withoutReplica(record.to),
      path,
      identities: identitiesOf(record),
      connections: (known?.edge.connections ?? 0) + 1,
      medianMs: samplesMs.toSorted((a, b) => a - b)[samplesMs.length >> 1] ?? 0,
      because,
    };
    this.#edges.set(key, { edge, samplesMs });
  }

  list(): readonly Edge[] {
    const order = ({ from, to, path }: Edge) => `${path === "denied" ? 1 : 0} ${from} ${to}`;
    return [...this.#edges.values()]
      .map(({ edge }) => edge)
      .toSorted((a, b) => order(a).localeCompare(order(b)));
  }
}

/** A pod's name without what its deployment adds: a hash of the template and a random part. */
function withoutReplica(name: string): string {
  return name.replace(/-[0-9a-f]{6,10}-[a-z0-9]{5}$/, "");
}

function isToldAgain(record: AccessRecord): boolean {
  return record.tunnelAddress !== undefined || record.destinationIdentity !== undefined;
}

function pathOf(record: AccessRecord): Edge["path"] {
  if (record.policy !== undefined) return "denied";
  if (record.error !== undefined) return "failed";
  return record.sourceIdentity === undefined ? "plaintext" : "mTLS";
}

function identitiesOf({ sourceIdentity, destinationIdentity }: AccessRecord): string {
  return `${shorten(sourceIdentity)} → ${shorten(destinationIdentity)}`;
}

/** `spiffe://cluster.local/ns/shop/sa/front` is `shop/front` where there is one trust domain. */
function shorten(identity: string | undefined): string {
  return identity?.replace(/^spiffe:\/\/[^/]*\/ns\/([^/]*)\/sa\//, "$1/") ?? "nobody";
}

/** The table, its columns as wide as they need to be. */
export function renderEdges(edges: readonly Edge[]): string {
  const head = ["from", "to", "path", "identities", "conns", "median", "because"];
  const rows = edges.map((edge) => [
    edge.from,
    edge.to,
    edge.path,
    edge.identities,
    String(edge.connections),
    `${edge.medianMs} ms`,
    edge.because,
  ]);
  const widths = head.map((_, column) =>
    Math.max(...[head, ...rows].map((row) => (row[column] ?? "").length)),
  );
  return [head, ...rows]
    .map((row) => row.map((cell, column) => cell.padEnd(widths[column] ?? 0)).join("  "))
    .map((line) => line.trimEnd())
    .join("\n");
}
