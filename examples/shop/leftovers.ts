/** What a runtime that is gone should have taken with it. */
import { execFile } from "node:child_process";
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import type { LocalStatus } from "#core/local-api.ts";

const run = promisify(execFile);

/** Names whatever of the runtime is still there: namespaces, cgroups, processes, files. */
export async function leftoversOf(status: LocalStatus): Promise<readonly string[]> {
  const { stdout } = await run("ip", ["netns", "list"]);
  const netns = new Set([
    status.fabric.netns,
    ...status.nodes.map((node) => node.netns),
    ...status.pods.map((pod) => pod.netns.replace(/^.*\//, "")),
  ]);
  const namespaces = stdout
    .split("\n")
    .map((line) => line.split(" ")[0] ?? "")
    .filter((name) => netns.has(name));
  const folders = [status.stateDir, ...status.nodes.map(({ cgroup }) => cgroup)];
  const present = await Promise.all(
    folders.map(async (path) => ((await exists(path)) ? [path] : [])),
  );
  return [...namespaces, ...present.flat(), ...(await processesOf(status))];
}

async function exists(path: string): Promise<boolean> {
  return readdir(path).then(
    () => true,
    () => false,
  );
}

/** Processes that the status named and that still run as what they were. */
async function processesOf(status: LocalStatus): Promise<readonly string[]> {
  const pids = [
    status.control?.pid,
    ...status.nodes.map(({ agent }) => agent?.pid),
    ...status.pods.flatMap(({ containers }) => containers.map(({ pid }) => pid)),
  ].filter((pid) => typeof pid === "number");
  const found = await Promise.all(
    pids.map(async (pid) => {
      const cgroup = await readFile(join("/proc", String(pid), "cgroup"), "utf8").catch(() => "");
      return cgroup.includes(`aquifer-${status.name}`) ? [`process ${pid}`] : [];
    }),
  );
  return found.flat();
}
