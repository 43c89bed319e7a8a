/**
 * The agents' access logs, read as they grow: one record for each connection that ended.
 */
import { type FileHandle, open } from "node:fs/promises";

/** One side's account of one connection. */
export interface AccessRecord {
  readonly node: string;
  readonly direction: "inbound" | "outbound";
  readonly from: string;
  readonly to: string;
  readonly sourceIdentity: string | undefined;
  readonly destinationIdentity: string | undefined;
  /** Where the tunnel led, where there was one. */
  readonly tunnelAddress: string | undefined;
  readonly durationMs: number;
  readonly error: string | undefined;
  /** The policy that refused it, where one did. */
  readonly policy: string | undefined;
  readonly atMs: number;
}

/** @returns undefined for a line that is not about a connection's end */
export function parseAccessLine(node: string, line: string): AccessRecord | undefined {
  const fields = parseObject(line);
  const direction = fields?.["direction"];
  if (fields === undefined || (direction !== "inbound" && direction !== "outbound")) {
    return undefined;
  }
  if (fields["target"] !== "access" || fields["message"] === "connection opened") return undefined;
  const text = (name: string): string | undefined => {
    const value = fields[name];
    return typeof value === "string" && value !== "" ? value : undefined;
  };
  return {
    node,
    direction,
    from: nameOf(text("src.namespace"), text("src.workload"), text("src.addr")),
    to: nameOf(text("dst.namespace"), text("dst.workload"), text("dst.addr")),
    sourceIdentity: text("src.identity"),
    destinationIdentity: text("dst.identity"),
    tunnelAddress: text("dst.hbone_addr"),
    durationMs: Number.parseFloat(text("duration") ?? "0"),
    error: text("error"),
    policy: text("policy"),
    atMs: Date.parse(text("time") ?? "") || Date.now(),
  };
}

/** `shop/front`: a workload's name without what a replica adds to it, or else the bare address. */
function nameOf(namespace?: string, workload?: string, address?: string): string {
  if (namespace === undefined || workload === undefined) return hostOf(address);
  return `${namespace}/${workload}`;
}

function hostOf(address: string | undefined): string {
  return address?.replace(/:\d+$/, "") ?? "unknown";
}

function parseObject(line: string): Readonly<Record<string, unknown>> | undefined {
  try {
    const value: unknown = JSON.parse(line);
    return typeof value === "object" && value !== null ? { ...value } : undefined;
  } catch {
    return undefined; // an agent that is not asked for JSON, or a line cut by its death
  }
}

/** Reads what is appended to files, whole lines at a time. */
export class LogFollower {
  readonly #files = new Map<string, { handle: FileHandle; offset: number; rest: string }>();

  /** Lines that have come since the last call. A file that does not exist yet has none. */
  async newLines(path: string): Promise<readonly string[]> {
    const file = await this.#open(path);
    if (file === undefined) return [];
    const { size } = await file.handle.stat();
    if (size <= file.offset) return [];
    const buffer = Buffer.alloc(size - file.offset);
    const { bytesRead } = await file.handle.read(buffer, 0, buffer.length, file.offset);
    file.offset += bytesRead;
    const lines = (file.rest + buffer.toString("utf8", 0, bytesRead)).split("\n");
    file.rest = lines.pop() ?? "";
    return lines;
  }

  async close(): Promise<void> {
    await Promise.all([...this.#files.values()].map(({ handle }) => handle.close()));
    this.#files.clear();
  }

  async #open(path: string) {
    const known = this.#files.get(path);
    if (known) return known;
    try {
      const file = { handle: await open(path, "r"), offset: 0, rest: "" };
      this.#files.set(path, file);
      return file;
    } catch {
      return undefined;
    }
  }
}
