import assert from "node:assert/strict";
import type { ChildProcess } from "node:child_process";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import type { AgentUpgrade } from "#core/local-api.ts";
import { eventually, finish, LocalMesh } from "../support/local-mesh.ts";
import {
  CLIENT,
  client,
  manifests,
  namespace,
  peerAuthentication,
  server,
  service,
} from "../support/manifests.ts";

const MANIFESTS = manifests(
  namespace("bank"),
  namespace("shop"),
  namespace("street", "none"),
  peerAuthentication("bank", "STRICT"),
  server("bank", "vault", "n1"),
  service("bank", "vault", [7001, 8080]),
  client("shop", "cart", "n2"),
  client("street", "stranger", "n2"),
);
const LOAD = new URL("apps/load.mjs", import.meta.url).pathname;
const NODES = ["n1", "n2"] as const;

/** Of each node. AQUIFER_TEST_UPGRADES asks for more. */
const UPGRADES = Number(process.env["AQUIFER_TEST_UPGRADES"] ?? 5);

interface LoadOutcome {
  readonly connections: number;
  readonly answered: number;
  readonly slow: number;
  readonly slowestMs: number;
  readonly errors: Readonly<Record<string, number>>;
}

let mesh: LocalMesh;

before(async () => {
  mesh = await LocalMesh.up({ name: "upgrade", manifests: MANIFESTS });
  await eventually("the cart to get in", () => getsIn("shop/cart"));
});
after(async () => {
  const stateDir = (await mesh?.status())?.stateDir ?? "";
  await mesh?.down();
  assert.ok(!existsSync(stateDir), "the runtime leaves nothing behind");
  const pins = "/sys/fs/bpf/aquifer/v1";
  const left = existsSync(pins) ? readdirSync(pins).filter((name) => name.includes(mesh.name)) : [];
  assert.deepEqual(left, []);
});

async function getsIn(from: string): Promise<boolean> {
  const command = ["curl", "-s", "-o", "/dev/null", "-m", "5", "http://vault.bank:8080/"];
  return (await mesh.exec(from, command)).code === 0;
}

/** Runs a program in a pod until its `end()` is called. */
async function start(from: string, command: readonly string[], firstWord: string) {
  const child: ChildProcess = await mesh.spawn(from, [process.execPath, ...command]);
  let printed = "";
  child.stdout?.on("data", (chunk: Buffer) => {
    printed += chunk.toString();
  });
  const ended = finish(child, 300_000);
  await eventually(`${command[0]} to run`, () => printed.includes(firstWord));
  return {
    child,
    end: async (): Promise<string> => {
      child.stdin?.end();
      const { stdout } = await ended;
      return stdout.trim().split("\n").at(-1) ?? "";
    },
  };
}

const startLoad = async () => {
  const load = await start("shop/cart", [LOAD, "vault.bank", "8080"], "running");
  return async () => JSON.parse(await load.end()) as LoadOutcome;
};

/** Tries to get in all the time. @returns how often it did */
function intrude(): () => Promise<number> {
  let [isOver, strangers] = [false, 0];
  const intruding = (async () => {
    while (!isOver) if (await getsIn("street/stranger")) strangers++;
  })();
  return async () => {
    isOver = true;
    await intruding;
    return strangers;
  };
}

async function agentOf(node: string) {
  const { nodes } = await mesh.status();
  return nodes.find(({ name }) => name === node)?.agent ?? undefined;
}

async function isBack(node: string, exceptPid: number): Promise<boolean> {
  const agent = await agentOf(node);
  return agent?.up === true && agent.pid !== null && agent.pid !== exceptPid;
}

const isAlive = (pid: number) => existsSync(join("/proc", String(pid)));

describe("an agent that is upgraded under load", () => {
  it("refuses nobody, breaks nothing, lets no stranger in, and ends", async () => {
    const held = await start("shop/cart", [CLIENT, "hold", "vault.bank"], '"open"');
    const stopLoad = await startLoad();
    const stopIntruding = intrude();
    const upgrades: AgentUpgrade[] = [];
    for (let turn = 0; turn < UPGRADES; turn++) upgrades.push(...(await mesh.upgrade()));
    const outcome = await stopLoad();
    assert.equal(await stopIntruding(), 0, "the stranger stays outside");
    assert.deepEqual(outcome.errors, {}, JSON.stringify(outcome));
    assert.equal(outcome.answered, outcome.connections);
    assert.ok(outcome.connections > 50 * UPGRADES, `only ${outcome.connections} connections`);
    assert.equal(upgrades.length, UPGRADES * NODES.length);
    assert.equal(held.child.exitCode, null, "the long connection lives");

    // The first agents serve the long connection; those between have nothing left to serve.
    const first = NODES.map((node) => upgrades.find((each) => each.node === node)?.from ?? 0);
    await eventually("only the first agents to be left", async () => {
      const draining = await Promise.all(
        NODES.map(async (node) => (await agentOf(node))?.draining),
      );
      return draining.flat().toSorted().join() === first.toSorted().join();
    });
    const { echoes } = JSON.parse(await held.end()) as { readonly echoes: number };
    assert.ok(echoes > 10 * UPGRADES, `${echoes} echoes`);
    await eventually("all old processes to be gone", () => {
      return upgrades.every(({ from }) => !isAlive(from ?? 0));
    });
    for (const node of NODES) {
      const agent = await agentOf(node);
      assert.equal(agent?.restarts, 0, "nobody was started again");
      assert.equal(agent?.pid, upgrades.findLast((each) => each.node === node)?.to);
    }
    assert.ok(await getsIn("shop/cart"));
  });
});

describe("an upgrade that is cut short", () => {
  for (const node of NODES) {
    it(`leaves ${node} with its agent where the new one is killed`, async () => {
      const before = await agentOf(node);
      const stopIntruding = intrude();
      // Wherever it has come to: before it took anything, while it did, or just afterwards.
      for (const delayMs of [50, 400, 650, 800]) {
        const upgrade = mesh.upgrade([node]).catch(() => []);
        const pid = await newAgent(node, (await agentOf(node))?.pid ?? 0);
        await eventually("its time to have come", elapsed(delayMs));
        if (isAlive(pid)) process.kill(pid, "SIGKILL");
        await upgrade;
        await eventually("the cart to get in", () => getsIn("shop/cart"));
      }
      assert.equal(await stopIntruding(), 0);
      assert.ok((await agentOf(node))?.up, `after process ${before?.pid}`);
    });

    it(`goes on with the new agent of ${node} where the old one is killed`, async () => {
      const stopIntruding = intrude();
      for (const delayMs of [50, 400, 650, 800]) {
        const old = (await agentOf(node))?.pid ?? 0;
        const upgrade = mesh.upgrade([node]).catch(() => []);
        await newAgent(node, old);
        await eventually("its time to have come", elapsed(delayMs));
        if (isAlive(old)) process.kill(old, "SIGKILL");
        await upgrade;
        await eventually("another agent to serve", () => isBack(node, old));
        await eventually("the cart to get in", () => getsIn("shop/cart"));
      }
      assert.equal(await stopIntruding(), 0);
    });
  }

  it("is refused while another is under way", async () => {
    const [first, second] = await Promise.allSettled([mesh.upgrade(["n1"]), mesh.upgrade(["n1"])]);
    assert.equal(first.status, "fulfilled");
    assert.equal(second.status, "rejected");
    assert.match(String(second.status === "rejected" && second.reason), /being replaced/);
  });
});

/** The process beside `oldPid` in the cgroup of a node's agent, as soon as there is one. */
async function newAgent(node: string, oldPid: number): Promise<number> {
  const { nodes } = await mesh.status();
  const known = nodes.find(({ name }) => name === node);
  const path = join(known?.cgroup ?? "", "agent", "cgroup.procs");
  const agent = await agentOf(node);
  const others = new Set([oldPid, ...(agent?.draining ?? [])]);
  let found = 0;
  await eventually("a new agent to start", async () => {
    const pids = readFileSync(path, "utf8").trim().split("\n").map(Number);
    found = pids.find((pid) => !others.has(pid)) ?? 0;
    return found !== 0;
  });
  return found;
}

function elapsed(delayMs: number): () => boolean {
  const atMs = Date.now() + delayMs;
  return () => Date.now() >= atMs;
}
