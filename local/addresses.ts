/**
 * Who has which address in a simulated cluster. Every runtime uses the same ones: their networks
 * do not touch.
 */
import { type IpAddress, parseIp } from "#core/ip.ts";

/** An address of each family. */
export interface DualAddress {
  readonly ipv4: IpAddress;
  readonly ipv6: IpAddress;
}

/** Nodes are numbered from 1; the fabric has an address for each (10.200.0.11 up). */
export const NODES_MAX = 64;
/** 10.244.N.1 is the node itself, and 255 the broadcast address of its /24. */
export const POD_NUMBERS = { first: 2, last: 254 } as const;
/** Numbers up to 10 are the runtime's own, as in a Kubernetes: 10.96.0.10 is the DNS. */
export const SERVICE_NUMBERS = { first: 11, last: 65_534 } as const;

export const SERVICE_BLOCKS = { ipv4: "10.96.0.0/16", ipv6: "fd96::/112" } as const;
export const POD_BLOCKS = { ipv4: "10.244.0.0/16", ipv6: "fd44::/16" } as const;

export const DNS_ADDRESS = dual("10.96.0.10", "fd96::a");
export const CONTROL_ADDRESS = dual("10.200.0.2", "fd45::2");

/** In the fabric, by which other nodes and the control server reach it. */
export function nodeAddress(node: number): DualAddress {
  return dual(`10.200.0.${10 + node}`, `fd45::${(10 + node).toString(16)}`);
}

export function podBlocks(node: number): { readonly ipv4: string; readonly ipv6: string } {
  return { ipv4: `10.244.${node}.0/24`, ipv6: `fd44:${node.toString(16)}::/64` };
}

/** Of the node in its own pods' network. */
export function gatewayAddress(node: number): DualAddress {
  return podAddress(node, 1);
}

/** @param number  in `POD_NUMBERS` */
export function podAddress(node: number, number: number): DualAddress {
  return dual(`10.244.${node}.${number}`, `fd44:${node.toString(16)}::${number.toString(16)}`);
}

/** @param number  in `SERVICE_NUMBERS` */
export function serviceAddress(number: number): DualAddress {
  return dual(`10.96.${number >> 8}.${number & 0xff}`, `fd96::${number.toString(16)}`);
}

function dual(ipv4: string, ipv6: string): DualAddress {
  return { ipv4: parseIp(ipv4), ipv6: parseIp(ipv6) };
}
