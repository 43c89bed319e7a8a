/** Pods of one node that have agreed to talk without a tunnel. */
import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { eventually, finish, LocalMesh } from "../support/local-mesh.ts";
import {
  client,
  manifests,
  namespace,
  peerAuthentication,
  pod,
  policy,
  server,
  service,
} from "../support/manifests.ts";

const ENCRYPTED = { "aquifer.mesh/same-node": "encrypted" };
const MANIFESTS = manifests(
  namespace("bank"),
  namespace("shop"),
  namespace("safe"),
  namespace("street", "none"),
  server("bank", "vault", "n1"),
  service("bank", "vault", [7001, 8080]),
  client("shop", "cart", "n1"),
  client("shop", "thief", "n1"),
  pod("safe", "guard", { node: "n1", annotations: ENCRYPTED }),
  client("street", "stranger", "n1"),
  peerAuthentication("bank", "STRICT"),
);
const DENY_CART = policy("bank", "no-cart", "vault", "DENY", [
  { from: [{ source: { principals: ["cluster.local/ns/shop/sa/cart"] } }] },
]);

/** Opens a connection, says so, and tells how it ends. */
const HOLD = `
import errno, socket
s = socket.create_connection(("vault.bank", 7001), 10)
s.sendall(b"hello"); assert s.recv(5) == b"hello"
print("open", s.getpeername()[0], flush=True)
s.settimeout(30)
try: print("ended", s.recv(1))
except OSError as error: print(errno.errorcode.get(error.errno, error))
`;

let mesh: LocalMesh;

before(async () => {
  process.env["AQUIFER_LOCAL_CONTROL_ENV"] = "AQUIFER_SAME_NODE=direct";
  mesh = await LocalMesh.up({ name: "direct", manifests: MANIFESTS, nodes: 1 });
});
after(async () => {
  await mesh?.down();
});

/** What the kernel has counted on the node. */
async function events(): Promise<ReadonlyMap<string, number>> {
  const text = await mesh.getFromNode("n1", 15_020, "/metrics");
  const lines = text.matchAll(/^aquifer_datapath_events_total\{event="(\w+)"\} (\d+)$/gm);
  return new Map([...lines].map(([, name = "", count]) => [name, Number(count)]));
}

async function countDuring(name: string, work: () => Promise<unknown>): Promise<number> {
  const before = (await events()).get(name) ?? 0;
  await work();
  return ((await events()).get(name) ?? 0) - before;
}

async function gets(from: string, host = "vault.bank"): Promise<number | null> {
  const command = ["curl", "-s", "-o", "/dev/null", "-m", "5", `http://${host}:8080/`];
  return (await mesh.exec(from, command)).code;
}

describe("two pods of one node", () => {
  it("talk without a tunnel, by service and by address, under STRICT", async () => {
    await eventually("the direct path", async () => {
      return (await countDuring("inDirect", () => gets("shop/cart"))) > 0;
    });
    const [address = ""] = (await mesh.pod("bank/vault")).addresses;
    const tunnels = await countDuring("inTunnel", async () => {
      const direct = await countDuring("inDirect", async () => {
        for (const host of ["vault.bank", address]) {
          assert.equal(await gets("shop/cart", host), 0);
        }
      });
      assert.equal(direct, 2);
    });
    assert.equal(tunnels, 0);
  });

  it("use the tunnel where one of them has not agreed", async () => {
    assert.equal(await countDuring("inDirect", () => gets("safe/guard")), 0);
    assert.equal(await gets("safe/guard"), 0);
  });

  it("keep out who is not in the mesh", async () => {
    assert.notEqual(await gets("street/stranger"), 0);
  });

  it("are separated by a policy within a second, open connections too", async () => {
    const held = await mesh.spawn("shop/cart", ["/usr/bin/python3", "-c", HOLD]);
    const bystander = await mesh.spawn("shop/thief", ["/usr/bin/python3", "-c", HOLD]);
    await Promise.all(
      [held, bystander].map(async (child) => {
        await new Promise((resolve) => child.stdout?.once("data", resolve));
      }),
    );
    const ended = finish(held, 20_000);
    const sinceMs = performance.now();
    await mesh.apply(DENY_CART);
    assert.match((await ended).stdout, /ECONN(RESET|ABORTED)/);
    const tookMs = performance.now() - sinceMs;
    // Control reads the object and the agent hears of it, besides.
    assert.ok(tookMs < 3_000, `${tookMs} ms`);
    const line = await mesh.waitForLog("n1", "the closed connection", (each) => {
      return String(each["message"]).startsWith("connection closed: denied by policy");
    });
    assert.equal(line["policy"], "bank/no-cart");
    assert.equal(bystander.exitCode, null);
    bystander.kill("SIGKILL");
    const denied = await countDuring("denied", async () => {
      assert.notEqual(await gets("shop/cart"), 0);
    });
    assert.ok(denied > 0);
    assert.equal(await gets("shop/thief"), 0);
    await mesh.delete(DENY_CART);
    await eventually("cart to get in again", async () => (await gets("shop/cart")) === 0);
  });
});
