import { run } from "../command.ts";

/**
 * Runs lines of `ip`, in a network namespace or in the host's.
 *
 * @throws MeshError `COMMAND_FAILED` at the first line that fails
 */
export async function ipBatch(lines: readonly string[], netns?: string): Promise<void> {
  if (lines.length === 0) return;
  const place = netns === undefined ? [] : ["-n", netns];
  await run("ip", [...place, "-batch", "-"], { input: `${lines.join("\n")}\n` });
}

export async function listNetns(): Promise<readonly string[]> {
  const output = await run("ip", ["-json", "netns", "list"]);
  // What ip prints is known from its source.
  const list = JSON.parse(output.trim() || "[]") as readonly { readonly name: string }[];
  return list.map(({ name }) => name);
}

export async function addNetns(names: readonly string[]): Promise<void> {
  await ipBatch(names.map((name) => `netns add ${name}`));
}

/** Those that are gone already are none of the least concern. */
export async function deleteNetns(names: readonly string[]): Promise<void> {
  const there = new Set(await listNetns());
  await ipBatch(names.filter((name) => there.has(name)).map((name) => `netns delete ${name}`));
}

export function netnsPath(name: string): string {
  return `/run/netns/${name}`;
}

/** Writes settings below /proc/sys/net of a namespace; those the kernel lacks are left out. */
export async function setSysctls(
  netns: string,
  settings: Readonly<Record<string, number>>,
): Promise<void> {
  const lines = Object.entries(settings).map(([path, value]) => {
    return `[ ! -e /proc/sys/net/${path} ] || echo ${value} > /proc/sys/net/${path}`;
  });
  const script = ["set -e", ...lines].join("\n");
  await run("nsenter", [`--net=${netnsPath(netns)}`, "sh", "-c", script]);
}

export async function applyRuleset(netns: string, ruleset: string): Promise<void> {
  await run("nsenter", [`--net=${netnsPath(netns)}`, "nft", "-f", "-"], { input: ruleset });
}
