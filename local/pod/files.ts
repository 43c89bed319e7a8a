/** The files under /etc that every pod has its own of. */
import { mkdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import type { IpAddress } from "#core/ip.ts";
import { DNS_ADDRESS, type DualAddress } from "../addresses.ts";
import { CLUSTER_DOMAIN } from "../dns/zone.ts";
import { writeWhole } from "../state/files.ts";

export interface PodHost {
  readonly namespace: string;
  readonly hostname: string;
  readonly addresses: DualAddress;
}

/** What resolv.conf(5) of a pod says. */
export interface ResolverSettings {
  readonly searchDomains: readonly string[];
  readonly nameservers: readonly IpAddress[];
}

/** As the kubelet has it: a short name is tried in the pod's own namespace first. */
export function resolverSettings(namespace: string): ResolverSettings {
  return {
    searchDomains: [`${namespace}.svc.${CLUSTER_DOMAIN}`, `svc.${CLUSTER_DOMAIN}`, CLUSTER_DOMAIN],
    nameservers: [DNS_ADDRESS.ipv4],
  };
}

export function resolvConf({ namespace }: PodHost): string {
  const { searchDomains, nameservers } = resolverSettings(namespace);
  return [
    `search ${searchDomains.join(" ")}`,
    ...nameservers.map((ip) => `nameserver ${ip}`),
    "options ndots:5",
    "",
  ].join("\n");
}

export function hostsFile({ hostname, addresses }: PodHost): string {
  return [
    "127.0.0.1 localhost",
    "::1 localhost ip6-localhost ip6-loopback",
    `${addresses.ipv4} ${hostname}`,
    `${addresses.ipv6} ${hostname}`,
    "",
  ].join("\n");
}

/**
 * The host's file with names looked up by DNS alone: others, as systemd-resolved, would be asked
 * through a socket of the host, which knows nothing of the cluster.
 */
export function nsswitchConf(ofHost: string): string {
  return ofHost.replaceAll(/^hosts:.*$/gm, "hosts: files dns");
}

/** Files of the host that a pod sees other ones in place of: `path in the pod` by our own file. */
export const POD_FILES = {
  "resolv.conf": "/etc/resolv.conf",
  hosts: "/etc/hosts",
  "nsswitch.conf": "/etc/nsswitch.conf",
} as const;

export async function writePodFiles(dir: string, host: PodHost): Promise<void> {
  await mkdir(dir, { recursive: true });
  const ofHost = await readFile(POD_FILES["nsswitch.conf"], "utf8").catch(() => undefined);
  await Promise.all([
    writeWhole(join(dir, "resolv.conf"), resolvConf(host)),
    writeWhole(join(dir, "hosts"), hostsFile(host)),
    // glibc does without one, and what is not there cannot be covered.
    ...(ofHost === undefined ? [] : [writeWhole(join(dir, "nsswitch.conf"), nsswitchConf(ofHost))]),
  ]);
}
