/**
 * What the kernel has to know to let two pods of this node talk to each other without the agent.
 *
 * Whatever is missing here is the agent's to judge, so what does not fit is left out. The tables
 * outlive the agent. Numbers of classes and of sets of endpoints are never given twice: what still
 * carries an old one finds nothing, and uses the agent.
 */
import type { IpAddress, SocketAddress } from "#core/ip.ts";
import { ipToMappedBytes } from "#core/ip.ts";
import { BpfMap, errnoOf } from "#native/kernel/index.ts";
import {
  decodeAttestedNetns,
  decodeFlow,
  decodeLocalIp,
  decodeMeta,
  decodeService,
  encodeAddress,
  encodeEndpointKey,
  encodeLocalIp,
  encodeMeta,
  encodePolicyKey,
  encodePolicyValue,
  encodeService,
  encodeUint32,
  POLICY_KEY,
  POLICY_VAL,
  type PolicyRow,
  type ServiceValue,
} from "./layout.ts";
import type { PodEntry } from "./pod-entry.ts";
import type { SharedMaps } from "./programs.ts";

/** What the table of policies holds, as bpf/include/maps.h has it. */
export const POLICY_ROWS_MAX = 65_536;

/** errno.h: a hash map is full. */
const E2BIG = 7;

const SLOT = encodeUint32(0);

/** A service's address that the kernel resolves by itself. */
export interface DirectService {
  readonly address: SocketAddress;
  /** The endpoints on this node, all of the family of `address`. */
  readonly local: readonly SocketAddress[];
  /** How many endpoints there are on all nodes, each as likely to be drawn. */
  readonly total: number;
}

/** A connection between two pods that the agent has no part in. */
export interface DirectConnection {
  /** The side that connected. */
  readonly source: SocketAddress;
  readonly destination: SocketAddress;
  /** Cookie of the network namespace that it was opened in. */
  readonly sourceNetns: bigint;
}

type Maps = Pick<SharedMaps, "meta" | "local_ips" | "attest" | "policy" | "services" | "endpoints">;

export class DirectTables {
  readonly #maps: Maps;
  readonly #entryOf: (uid: string) => PodEntry | undefined;
  /** What is written of each service, by its key. */
  readonly #services = new Map<string, string>();
  #generation = 0;

  constructor(maps: Maps, entryOf: (uid: string) => PodEntry | undefined) {
    this.#maps = maps;
    this.#entryOf = entryOf;
  }

  /** A number that no class and no set of endpoints has had, under these pins. */
  newId(): number {
    const bytes = this.#maps.meta.lookup(SLOT);
    if (bytes === undefined) throw new TypeError("map `meta` is empty");
    const { abi, nextId } = decodeMeta(bytes);
    if (nextId === 0xffff_ffff) throw new RangeError("all numbers are used up");
    this.#maps.meta.update(SLOT, encodeMeta({ abi, nextId: nextId + 1 }));
    return nextId;
  }

  /**
   * Puts a whole new table in force: a connection meets all of the old one or all of the new one.
   * Waits, about 10 ms, until no program reads the old one any more.
   *
   * @param rows  no more than `POLICY_ROWS_MAX`
   */
  replacePolicies(rows: readonly PolicyRow[]): void {
    const generation = ++this.#generation;
    const table = BpfMap.makeHash("policy_table", {
      keyBytes: POLICY_KEY.bytes,
      valueBytes: POLICY_VAL.bytes,
      entriesMax: POLICY_ROWS_MAX,
    });
    try {
      for (const row of rows) {
        table.update(encodePolicyKey(row), encodePolicyValue(row, generation));
      }
      this.#maps.policy.update(SLOT, encodeUint32(table.fd));
    } finally {
      table.close();
    }
  }

  /**
   * Lets the pod take part, as one of a class. Does nothing where it does already, or where it is
   * not enrolled.
   *
   * @returns false where there is no room for its addresses: it then takes no part as a destination
   */
  admit(uid: string, classId: number): boolean {
    const entry = this.#entryOf(uid);
    const config = entry?.read();
    if (entry === undefined || config === undefined) return true;
    if (config.id !== classId || !config.direct) {
      entry.put({ ...config, id: classId, direct: true });
    }
    const bytes = encodeLocalIp({ netns: entry.cookie, id: classId });
    return config.addresses.every((ip) => put(this.#maps.local_ips, ipToMappedBytes(ip), bytes));
  }

  /** From now on the agent judges what the pod sends and gets. What is open goes on. */
  withdraw(uid: string): void {
    const entry = this.#entryOf(uid);
    const config = entry?.read();
    if (entry === undefined || config === undefined) return;
    for (const ip of config.addresses) this.#removeAddress(ip, entry.cookie);
    if (config.direct) entry.put({ ...config, id: 0, direct: false });
  }

  /** @returns those that there was no room for */
  replaceServices(services: readonly DirectService[]): readonly DirectService[] {
    const wanted = new Map(
      services.map((service) => [keyOf(encodeAddress(service.address)), service]),
    );
    for (const key of this.#maps.services.keys()) {
      if (!wanted.has(keyOf(key))) this.#removeService(key);
    }
    return [...wanted.values()].filter((service) => !this.#putService(service));
  }

  /** All that are open. Those that open or close meanwhile may be missing. */
  *connections(): Generator<DirectConnection> {
    for (const key of this.#maps.attest.keys()) {
      const value = this.#maps.attest.lookup(key);
      if (value === undefined) continue;
      const [source, destination] = decodeFlow(key);
      yield { source, destination, sourceNetns: decodeAttestedNetns(value) };
    }
  }

  /** Another pod may have the address by now: then the entry is its. */
  #removeAddress(ip: IpAddress, cookie: bigint): void {
    const key = ipToMappedBytes(ip);
    const value = this.#maps.local_ips.lookup(key);
    if (value && decodeLocalIp(value).netns === cookie) this.#maps.local_ips.delete(key);
  }

  #putService({ address, local, total }: DirectService): boolean {
    const key = encodeAddress(address);
    const text = JSON.stringify([local, total]);
    if (this.#services.get(keyOf(key)) === text) return true;
    const before = this.#maps.services.lookup(key);
    const service = { set: this.newId(), local: local.length, total };
    const fits =
      local.every((endpoint, slot) =>
        put(this.#maps.endpoints, encodeEndpointKey(service.set, slot), encodeAddress(endpoint)),
      ) && put(this.#maps.services, key, encodeService(service));
    if (!fits) {
      this.#removeEndpoints(service);
      this.#removeService(key);
      return false;
    }
    this.#services.set(keyOf(key), text);
    if (before) this.#removeEndpoints(decodeService(before));
    return true;
  }

  #removeService(key: Uint8Array): void {
    const value = this.#maps.services.lookup(key);
    this.#maps.services.delete(key);
    this.#services.delete(keyOf(key));
    if (value) this.#removeEndpoints(decodeService(value));
  }

  #removeEndpoints({ set, local }: ServiceValue): void {
    for (let slot = 0; slot < local; slot++) {
      this.#maps.endpoints.delete(encodeEndpointKey(set, slot));
    }
  }
}

/** @returns false where the map is full */
function put(map: BpfMap, key: Uint8Array, value: Uint8Array): boolean {
  try {
    map.update(key, value);
    return true;
  } catch (error) {
    if (errnoOf(error) === E2BIG) return false;
    throw error;
  }
}

function keyOf(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString("hex");
}
