/** A runtime from the first look at the host to the last file removed. */
import { access, constants, mkdir } from "node:fs/promises";
import { delimiter, join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import type { FastifyInstance } from "fastify";
import { MeshError, reasonOf } from "#core/errors.ts";
import { serveApi } from "./api/server.ts";
import type { LocalConfig } from "./config.ts";
import { Names } from "./names.ts";
import { ProblemTeller } from "./problems.ts";
import { Runtime } from "./runtime.ts";
import { findCgroupMount } from "./state/cgroup.ts";
import { findRemains, removeRemains, removeStateDir } from "./state/clean-up.ts";
import { Ledger } from "./state/ledger.ts";
import { type Lock, takeLock } from "./state/lock.ts";
import { followPaths, readPaths } from "./watch.ts";

export interface LifecycleEvents {
  /** A line for whoever is watching. */
  readonly say: (line: string) => void;
  /** Somebody asked over the API for the end. */
  readonly onDown: () => void;
}

const TOOLS = { ip: "iproute2", nft: "nftables", nsenter: "util-linux", unshare: "util-linux" };

export interface Running {
  readonly runtime: Runtime;
  /** Resolves once everything that is wanted is there and ready, or `limitMs` is over. */
  settled(limitMs: number): Promise<boolean>;
  /** Leaves nothing behind. */
  stop(graceMs: number): Promise<void>;
}

/** @throws MeshError where the host cannot carry a runtime, has one of this name, or is stopped */
export async function start(
  config: LocalConfig,
  events: LifecycleEvents,
  signal: AbortSignal,
): Promise<Running> {
  await checkHost(config);
  const lock = await takeLock(config.name);
  const names = await namesOf(config);
  try {
    await cleanUp(names, events.say);
    return await startIn({ config, names, lock, events, signal });
  } catch (error) {
    await removeAll(names).catch((second: unknown) => events.say(reasonOf(second)));
    lock.release();
    throw error;
  }
}

/** Removes what a runtime that was killed has left. @returns whether there was anything */
export async function removeLeftOvers(config: LocalConfig, say: LifecycleEvents["say"]) {
  const lock = await takeLock(config.name);
  try {
    return await cleanUp(await namesOf(config), say);
  } finally {
    lock.release();
  }
}

async function namesOf({ name, root, pinRoot }: LocalConfig): Promise<Names> {
  return new Names({ runtime: name, root, pinRoot, cgroupMount: await findCgroupMount() });
}

async function cleanUp(names: Names, say: LifecycleEvents["say"]): Promise<boolean> {
  const remains = await findRemains(names);
  const count = remains.netns.length + remains.cgroups.length + remains.pinDirs.length;
  const isDirty = remains.netns.length > 0 || remains.cgroups.length > 0;
  if (isDirty) say(`removing ${count} things that an earlier "${names.runtime}" left behind`);
  await removeRemains(remains);
  await removeStateDir(names);
  return isDirty;
}

async function removeAll(names: Names): Promise<void> {
  await removeRemains(await findRemains(names));
  await removeStateDir(names);
}

interface StartOptions {
  readonly config: LocalConfig;
  readonly names: Names;
  readonly lock: Lock;
  readonly events: LifecycleEvents;
  readonly signal: AbortSignal;
}

/** Control and agents take a second or two; after this something is wrong with them. */
const START_LIMIT_MS = 60_000;

async function startIn({ config, names, lock, events, signal }: StartOptions): Promise<Running> {
  const { say, onDown } = events;
  for (const dir of [names.objectsDir, names.logsDir]) await mkdir(dir, { recursive: true });
  const files = await readPaths(config.paths);
  let waiting: (() => void)[] = [];
  const wake = () => {
    for (const each of waiting) each();
    waiting = [];
  };
  let hasSettled = false;
  const teller = new ProblemTeller(say);
  const ledger = new Ledger(names.ledger);
  const runtime = new Runtime(config, names, ledger, { onNote: say, onChange: wake });
  const api = await serveApi({ runtime, isSettled: () => hasSettled, onDown });
  const ending = new AbortController();
  try {
    await runtime.cluster.makeNetworks();
    runtime.follow(files);
    teller.tell(runtime.problems);
    const processes = runtime.cluster.startProcesses();
    void followFiles(runtime, teller, ending.signal, say);
    await within(processes, START_LIMIT_MS, signal);
  } catch (error) {
    ending.abort();
    await runtime.stop(0).catch((second: unknown) => say(reasonOf(second)));
    await api.close();
    throw error;
  }
  return {
    runtime,
    settled: async (limitMs) => {
      const deadline = AbortSignal.timeout(limitMs);
      deadline.addEventListener("abort", wake, { once: true });
      while (!runtime.isSettled && !deadline.aborted && !ending.signal.aborted) {
        await new Promise<void>((resolve) => waiting.push(resolve));
      }
      await runtimeIsKnown(runtime, AbortSignal.any([deadline, ending.signal]));
      teller.tell(runtime.problems);
      hasSettled = true;
      return runtime.isSettled;
    },
    stop: async (graceMs) => {
      ending.abort();
      wake();
      await runtime.stop(graceMs);
      await removeInOrder(names, api, lock);
    },
  };
}

async function within(work: Promise<void>, limitMs: number, signal: AbortSignal): Promise<void> {
  const limit = AbortSignal.any([signal, AbortSignal.timeout(limitMs)]);
  const { promise, reject } = Promise.withResolvers<never>();
  const abort = () => {
    const reason = signal.aborted ? "it was stopped" : `it took longer than ${limitMs} ms`;
    reject(new MeshError("TIMED_OUT", `Cannot start the mesh: ${reason}`));
  };
  if (limit.aborted) abort();
  limit.addEventListener("abort", abort, { once: true });
  await Promise.race([work, promise]).finally(() => limit.removeEventListener("abort", abort));
}

/** The socket goes last but one: who waits for the end looks at it. */
async function removeInOrder(names: Names, api: FastifyInstance, lock: Lock): Promise<void> {
  try {
    await removeRemains(await findRemains(names));
  } finally {
    await api.close();
    await removeStateDir(names);
    lock.release();
  }
}

/** The longest that whoever waits for what the files say waits for control and agents as well. */
const WORD_LIMIT_MS = 5_000;
const WORD_POLL_MS = 20;

/** Until every agent has heard of all there is: of the endpoints that became ready last, too. */
async function runtimeIsKnown(runtime: Runtime, signal: AbortSignal): Promise<void> {
  const limit = AbortSignal.any([signal, AbortSignal.timeout(WORD_LIMIT_MS)]);
  while (!limit.aborted) {
    const word = await runtime.hearControl(limit);
    if (word === undefined) return;
    if (runtime.cluster.nodes.every(({ name }) => word.current.includes(name))) return;
    await delay(WORD_POLL_MS);
  }
}

async function followFiles(
  runtime: Runtime,
  teller: ProblemTeller,
  signal: AbortSignal,
  say: LifecycleEvents["say"],
): Promise<void> {
  const { paths } = runtime.config;
  if (paths.length === 0) return;
  const take: Parameters<typeof followPaths>[1] = (files) => {
    const { changes } = runtime.follow(files);
    for (const { object, action } of changes) {
      if (action !== "unchanged") say(`${object} ${action}`);
    }
    const limit = AbortSignal.any([signal, AbortSignal.timeout(WORD_LIMIT_MS)]);
    void runtime.hearControl(limit).then(() => teller.tell(runtime.problems));
  };
  const complain = (error: unknown) => say(`Cannot read the objects: ${reasonOf(error)}`);
  await followPaths(paths, take, complain, signal);
}

async function checkHost({ ownEnvironment }: LocalConfig): Promise<void> {
  if (process.getuid?.() !== 0) {
    throw new MeshError("KERNEL_UNSUPPORTED", "Cannot make network namespaces: root is needed");
  }
  const folders = (ownEnvironment["PATH"] ?? "").split(delimiter);
  const missing: string[] = [];
  for (const [tool, debianPackage] of Object.entries(TOOLS)) {
    const places = folders.map((folder) => access(join(folder, tool), constants.X_OK));
    const found = await Promise.any(places).then(
      () => true,
      () => false,
    );
    if (!found) missing.push(`${tool} (Debian: ${debianPackage})`);
  }
  if (missing.length > 0) {
    const list = missing.join(", ");
    throw new MeshError("COMMAND_FAILED", `Cannot find ${list}: install what is missing`);
  }
}
