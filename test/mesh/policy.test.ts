import assert from "node:assert/strict";
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
  server("bank", "vault", "n1"),
  service("bank", "vault", [7001, 8080]),
  client("shop", "cart", "n2"),
  client("shop", "thief", "n2"),
  client("bank", "clerk", "n1"),
  client("street", "stranger", "n2"),
);
const CLIENTS = ["shop/cart", "shop/thief", "bank/clerk", "street/stranger"] as const;

/** The addresses of the pods of the second node. */
const NODE_2 = ["10.244.2.0/24", "fd44:2::/64"];

let mesh: LocalMesh;

before(async () => {
  mesh = await LocalMesh.up({ name: "policy", manifests: MANIFESTS });
});
after(async () => {
  await mesh?.down();
});

async function getsIn(from: string, port = 8080): Promise<boolean> {
  const url = `http://vault.bank:${port}/`;
  const command = ["curl", "-s", "-o", "/dev/null", "-m", "5", url];
  return (await mesh.exec(from, command)).code === 0;
}

/** Applies objects, waits until `expected` is who gets in, and takes them away again. */
async function under(yaml: string, expected: readonly string[], work?: () => Promise<void>) {
  const { problems } = await mesh.apply(yaml);
  assert.deepEqual(problems, []);
  try {
    await eventuallyIn(expected);
    await work?.();
  } finally {
    await mesh.delete(yaml);
  }
  await eventuallyIn(CLIENTS);
}

/** Waits until these clients get in, and no other. */
async function eventuallyIn(expected: readonly string[]): Promise<void> {
  let last: readonly string[] = [];
  const isSo = async () => {
    const results = await Promise.all(CLIENTS.map((from) => getsIn(from)));
    last = CLIENTS.filter((_, index) => results[index]);
    return last.join() === expected.join();
  };
  await eventually("the right clients to get in", isSo).catch((error: unknown) => {
    throw new Error(`expected "${expected.join()}" to get in, not "${last.join()}"`, {
      cause: error,
    });
  });
}

const from = (source: Record<string, readonly string[]>) => ({ from: [{ source }] });
const toPorts = (...ports: readonly string[]) => ({ to: [{ operation: { ports } }] });

describe("an authorization policy", () => {
  for (const [what, action, rules, allowed] of [
    ["nobody by an empty ALLOW", "ALLOW", [], []],
    ["by namespace", "ALLOW", [from({ namespaces: ["shop"] })], ["shop/cart", "shop/thief"]],
    [
      "by principal",
      "ALLOW",
      [from({ principals: ["cluster.local/ns/shop/sa/cart"] })],
      ["shop/cart"],
    ],
    [
      "by service account",
      "ALLOW",
      [from({ serviceAccounts: ["shop/cart", "clerk"] })],
      ["shop/cart", "bank/clerk"],
    ],
    [
      "by a principal's prefix",
      "ALLOW",
      [from({ principals: ["cluster.local/ns/shop/*"] })],
      ["shop/cart", "shop/thief"],
    ],
    ["by any identity", "ALLOW", [from({ principals: ["*"] })], CLIENTS.slice(0, 3)],
    [
      "by a negated namespace, which who has no identity fulfils",
      "ALLOW",
      [from({ notNamespaces: ["shop"] })],
      ["bank/clerk", "street/stranger"],
    ],
    [
      "by DENY of a service account",
      "DENY",
      [from({ serviceAccounts: ["shop/thief"] })],
      ["shop/cart", "bank/clerk", "street/stranger"],
    ],
    ["by DENY of IP blocks", "DENY", [from({ ipBlocks: NODE_2 })], ["bank/clerk"]],
    [
      "by DENY of all but IP blocks",
      "DENY",
      [from({ notIpBlocks: NODE_2 })],
      ["shop/cart", "shop/thief", "street/stranger"],
    ],
    ["by port", "ALLOW", [toPorts("8080")], CLIENTS],
    ["by another port", "ALLOW", [toPorts("7001")], []],
    ["by DENY of a port", "DENY", [toPorts("8080")], []],
  ] as const) {
    it(`lets in ${what}`, async () => {
      await under(policy("bank", "tried", "vault", action, rules), allowed);
    });
  }

  it("is named in the log and in the metrics of what it refused", async () => {
    const denied = policy("bank", "no-thieves", "vault", "DENY", [
      from({ serviceAccounts: ["shop/thief"] }),
    ]);
    await under(denied, ["shop/cart", "bank/clerk", "street/stranger"], async () => {
      const line = await mesh.waitForLog("n1", "a refusal by no-thieves", (record) =>
        String(record["policy"]).includes("bank/no-thieves"),
      );
      assert.equal(line["src.identity"], "spiffe://cluster.local/ns/shop/sa/thief");
      const metrics = await mesh.getFromNode("n1", 15_020, "/metrics");
      assert.match(metrics, /istio_tcp_connections_(failed|opened)_total\{.*response_flags="DENY"/);
    });
  });

  it("closes a live connection that it no longer allows, within a second", async () => {
    const holding = await mesh.spawn("shop/thief", [
      process.execPath,
      CLIENT,
      "hold",
      "vault.bank",
    ]);
    let printed = "";
    holding.stdout?.on("data", (chunk: Buffer) => {
      printed += chunk.toString();
    });
    const ended = finish(holding, 60_000);
    await eventually("the connection to be open", () => printed.includes('"open"'));
    const denied = policy("bank", "live", "vault", "DENY", [
      from({ serviceAccounts: ["shop/thief"] }),
    ]);
    const appliedAtMs = Date.now();
    await mesh.apply(denied);
    const { stdout } = await ended;
    const tookMs = Date.now() - appliedAtMs;
    await mesh.delete(denied);
    assert.match(stdout, /"outcome":"(ECONNRESET|end|close)"/);
    // The limit is part of the contract, so it is checked; with room for a busy machine.
    assert.ok(tookMs < 3_000, `it took ${tookMs} ms`);
    await eventually("the thief to get in again", () => getsIn("shop/thief"));
  });
});

describe("peer authentication", () => {
  it("refuses plaintext where it is STRICT, and lets identities in", async () => {
    await under(peerAuthentication("bank", "STRICT"), CLIENTS.slice(0, 3));
  });
});
