import assert from "node:assert/strict";
import type { ChildProcess } from "node:child_process";
import { after, before, describe, it } from "node:test";
import { eventually, finish, LocalMesh } from "../support/local-mesh.ts";
import {
  CLIENT,
  client,
  manifests,
  namespace,
  peerAuthentication,
  policy,
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
  server("street", "kiosk", "n2"),
  service("street", "kiosk", [8080]),
);

const AGENT_KILLS = 5;

let mesh: LocalMesh;

before(async () => {
  mesh = await LocalMesh.up({ name: "failure", manifests: MANIFESTS });
  await eventually("the cart to get in", () => getsIn("shop/cart"));
});
after(async () => {
  await mesh?.down();
});

async function getsIn(from: string): Promise<boolean> {
  const command = ["curl", "-s", "-o", "/dev/null", "-m", "5", "http://vault.bank:8080/"];
  return (await mesh.exec(from, command)).code === 0;
}

/** Opens a connection to the vault and keeps it busy, until its stdin ends. */
async function hold(from: string): Promise<{ child: ChildProcess; ended: Promise<string> }> {
  const child = await mesh.spawn(from, [process.execPath, CLIENT, "hold", "vault.bank"]);
  let printed = "";
  child.stdout?.on("data", (chunk: Buffer) => {
    printed += chunk.toString();
  });
  const ended = finish(child, 120_000).then(({ stdout }) => stdout);
  await eventually("the connection to be open", () => printed.includes('"open"'));
  return { child, ended };
}

async function agentOf(node: string) {
  const { nodes } = await mesh.status();
  return nodes.find(({ name }) => name === node)?.agent ?? undefined;
}

describe("the control server", () => {
  it("can be killed and come back without effect on traffic", async () => {
    const { child, ended } = await hold("shop/cart");
    const before = (await mesh.status()).control;
    process.kill(before?.pid ?? 0, "SIGKILL");
    await mesh.waitFor("control to be gone or new", ({ control }) => control?.pid !== before?.pid);
    assert.ok(await getsIn("shop/cart"), "new connections go on");
    assert.ok(!(await getsIn("street/stranger")), "STRICT goes on");
    await mesh.waitFor("control to be back", ({ control }) => {
      return control?.ready === true && control.pid !== before?.pid;
    });
    const denied = policy("bank", "nobody", "vault", "DENY", [{}]);
    await mesh.apply(denied);
    await eventually("a new policy to arrive", async () => !(await getsIn("shop/cart")));
    const outcome = await ended;
    assert.match(outcome, /"outcome"/, "the policy also closed the connection that was held");
    await mesh.delete(denied);
    await eventually("the cart to get in again", () => getsIn("shop/cart"));
    child.stdin?.end();
  });
});

describe("an agent", () => {
  it("can be killed any number of times: nobody gets in unchecked, and it recovers", async () => {
    let isOver = false;
    let strangers = 0;
    const intruding = (async () => {
      while (!isOver) if (await getsIn("street/stranger")) strangers++;
    })();
    for (let kill = 0; kill < AGENT_KILLS; kill++) {
      for (const node of ["n1", "n2"]) {
        const before = await agentOf(node);
        process.kill(before?.pid ?? 0, "SIGKILL");
        await eventually(`the agent of ${node} to be back`, async () => {
          const now = await agentOf(node);
          return now?.up === true && now.pid !== before?.pid;
        });
      }
      await eventually("the cart to get in", () => getsIn("shop/cart"));
    }
    isOver = true;
    await intruding;
    assert.equal(strangers, 0);
  });

  it("refuses its pods' connections while it is away", async () => {
    const before = await agentOf("n2");
    process.kill(before?.pid ?? 0, "SIGSTOP");
    try {
      // Stopped, it neither accepts nor passes on: nothing may get through in its place.
      assert.ok(!(await getsIn("shop/cart")));
    } finally {
      process.kill(before?.pid ?? 0, "SIGCONT");
    }
    await eventually("the cart to get in again", () => getsIn("shop/cart"));
  });
});

describe("a namespace", () => {
  it("leaves the mesh and joins it again, while its pods run on", async () => {
    const pidsBefore = (await mesh.pod("bank/vault")).containers.map(({ pid }) => pid);
    assert.ok(!(await getsIn("street/stranger")));

    await mesh.apply(namespace("bank", "none"));
    await mesh.waitFor("the vault to be outside", ({ pods }) => {
      return pods.some(({ name, mesh: state }) => name === "vault" && state === "outside");
    });
    // Nothing enforces STRICT any more: that is what leaving means.
    await eventually("the stranger to get in", () => getsIn("street/stranger"));
    await eventually("the cart to get in", () => getsIn("shop/cart"));

    await mesh.apply(namespace("bank", "ambient"));
    await mesh.waitFor("the vault to be enrolled", ({ pods }) => {
      return pods.some(({ name, mesh: state }) => name === "vault" && state === "enrolled");
    });
    await eventually("the stranger to be kept out", async () => !(await getsIn("street/stranger")));
    await eventually("the cart to get in", () => getsIn("shop/cart"));
    const pidsAfter = (await mesh.pod("bank/vault")).containers.map(({ pid }) => pid);
    assert.deepEqual(pidsAfter, pidsBefore);
  });
});
