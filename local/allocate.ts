/** Numbers for pods and addresses for services. */
import { blockContains, type IpAddress, isIpv4, parseIp, parseIpBlock } from "#core/ip.ts";
import { DNS_ADDRESS, SERVICE_BLOCKS, SERVICE_NUMBERS, serviceAddress } from "./addresses.ts";
import { nameOf, type ServiceObject } from "./object/object.ts";

/**
 * Numbers from `first` to `last`, handed out in turn: one that was given back is the last to be
 * given out again, so that nobody who still remembers its old holder reaches the new one.
 */
export class NumberPool {
  readonly #first: number;
  readonly #last: number;
  readonly #taken = new Set<number>();
  #next: number;

  constructor({ first, last }: { readonly first: number; readonly last: number }) {
    this.#first = first;
    this.#last = last;
    this.#next = first;
  }

  /** @returns undefined where all are taken */
  take(): number | undefined {
    const count = this.#last - this.#first + 1;
    for (let tried = 0; tried < count; tried++) {
      const number = this.#next;
      this.#next = number === this.#last ? this.#first : number + 1;
      if (this.#taken.has(number)) continue;
      this.#taken.add(number);
      return number;
    }
    return undefined;
  }

  release(number: number): void {
    this.#taken.delete(number);
  }
}

/** The virtual addresses of services, by `nameOf()`. */
export type ServiceAddresses = ReadonlyMap<string, readonly IpAddress[]>;

export interface Assignment {
  readonly addresses: ServiceAddresses;
  /** Services that could not get what they ask for, each with the reason. */
  readonly refused: ReadonlyMap<string, string>;
}

/** Keeps what services have, gives the others what they ask for, and then the rest what is free. */
export function assignAddresses(
  services: readonly ServiceObject[],
  current: ServiceAddresses,
): Assignment {
  const addresses = new Map<string, readonly IpAddress[]>();
  const refused = new Map<string, string>();
  const holders = new Map<IpAddress, string>([
    [DNS_ADDRESS.ipv4, "the cluster DNS"],
    [DNS_ADDRESS.ipv6, "the cluster DNS"],
  ]);
  const give = (name: string, ips: readonly IpAddress[]) => {
    addresses.set(name, ips);
    for (const ip of ips) holders.set(ip, name);
  };
  const waiting = services.filter((service) => {
    const { addressing } = service;
    if (addressing.kind !== "virtual") return false;
    const held = current.get(nameOf(service));
    if (held === undefined || !satisfies(held, service, addressing.requested)) return true;
    give(nameOf(service), held);
    return false;
  });
  for (const service of waiting.filter((each) => requestOf(each).length > 0)) {
    const name = nameOf(service);
    const wanted = requestOf(service).map(parseIp);
    const reason = wanted.map((ip) => objection(ip, holders)).find((text) => text !== undefined);
    if (reason === undefined) give(name, wanted);
    else refused.set(name, reason);
  }
  let number: number = SERVICE_NUMBERS.first;
  for (const service of waiting.filter((each) => requestOf(each).length === 0)) {
    while (number <= SERVICE_NUMBERS.last && isHeld(number, holders)) number++;
    if (number <= SERVICE_NUMBERS.last) give(nameOf(service), familiesOf(service, number));
    else refused.set(nameOf(service), "no address is free");
  }
  return { addresses, refused };
}

function requestOf({ addressing }: ServiceObject): readonly string[] {
  return addressing.kind === "virtual" ? addressing.requested : [];
}

function satisfies(
  held: readonly IpAddress[],
  { families }: ServiceObject,
  requested: readonly string[],
): boolean {
  if (requested.length > 0) {
    return requested.length === held.length && requested.every((ip) => held.includes(parseIp(ip)));
  }
  const heldFamilies = held.map((ip) => (isIpv4(ip) ? "IPv4" : "IPv6"));
  return families.length === held.length && families.every((f) => heldFamilies.includes(f));
}

function objection(ip: IpAddress, holders: ReadonlyMap<IpAddress, string>): string | undefined {
  const block = isIpv4(ip) ? SERVICE_BLOCKS.ipv4 : SERVICE_BLOCKS.ipv6;
  if (!blockContains(parseIpBlock(block), ip)) return `${ip} is not in ${block}`;
  const holder = holders.get(ip);
  return holder === undefined ? undefined : `${ip} is the address of ${holder}`;
}

function isHeld(number: number, holders: ReadonlyMap<IpAddress, string>): boolean {
  const { ipv4, ipv6 } = serviceAddress(number);
  return holders.has(ipv4) || holders.has(ipv6);
}

function familiesOf({ families }: ServiceObject, number: number): readonly IpAddress[] {
  const { ipv4, ipv6 } = serviceAddress(number);
  return families.map((family) => (family === "IPv4" ? ipv4 : ipv6));
}
