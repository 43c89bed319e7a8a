import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import type { LocalStatus } from "#core/local-api.ts";
import { eventually, LocalMesh } from "../support/local-mesh.ts";
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

const PORTS = [7001, 7002, 7003, 7004, 7005, 7006, 8080];

const MANIFESTS = manifests(
  namespace("inside"),
  namespace("outside", "none"),
  server("inside", "far", "n1"),
  service("inside", "far", PORTS),
  client("inside", "caller", "n2"),
  client("inside", "neighbour", "n1"),
  server("outside", "plain", "n1"),
  service("outside", "plain", PORTS),
  client("outside", "stranger", "n2"),
);
const CLIENTS = ["inside/caller", "inside/neighbour", "outside/stranger"] as const;

let mesh: LocalMesh;

before(async () => {
  mesh = await LocalMesh.up({
    name: "nft",
    manifests: MANIFESTS,
    arguments: ["--agent-env", "AQUIFER_DATAPATH=nftables"],
  });
});
after(async () => {
  await mesh?.down();
});

async function call(from: string, ...args: readonly string[]): Promise<Record<string, unknown>> {
  const { code, stdout, stderr } = await mesh.exec(from, [process.execPath, CLIENT, ...args]);
  assert.equal(code, 0, `${args.join(" ")} from ${from}: ${stderr}${stdout}`);
  return JSON.parse(stdout.trim().split("\n").at(-1) ?? "") as Record<string, unknown>;
}

async function getsIn(from: string, target = "far.inside"): Promise<boolean> {
  const url = `http://${target}:8080/`;
  const command = ["curl", "-s", "-o", "/dev/null", "-m", "5", url];
  return (await mesh.exec(from, command)).code === 0;
}

async function eventuallyIn(expected: readonly string[]): Promise<void> {
  await eventually(`${expected.join() || "nobody"} to get in`, async () => {
    const results = await Promise.all(CLIENTS.map((from) => getsIn(from)));
    return CLIENTS.filter((_, index) => results[index]).join() === expected.join();
  });
}

async function under(yaml: string, expected: readonly string[]): Promise<void> {
  const { problems } = await mesh.apply(yaml);
  assert.deepEqual(problems, []);
  try {
    await eventuallyIn(expected);
  } finally {
    await mesh.delete(yaml);
  }
  await eventuallyIn(CLIENTS);
}

describe("a mesh on the rung of nftables", () => {
  it("says so, and why", async () => {
    for (const node of ["n1", "n2"]) {
      const metrics = await mesh.getFromNode(node, 15_020, "/metrics");
      assert.match(metrics, /^aquifer_datapath_rung\{rung="nftables"\} 1$/m);
      await mesh.waitForLog(node, "its rung", (line) => {
        return line["rung"] === "nftables" && line["why"] === "AQUIFER_DATAPATH=nftables";
      });
    }
  });

  for (const [what, target] of [
    ["a service's name", async () => "far"],
    ["a pod's IPv4 address", async () => (await mesh.pod("inside/far")).addresses[0] ?? ""],
    ["a pod's IPv6 address", async () => `[${(await mesh.pod("inside/far")).addresses[1]}]`],
  ] as const) {
    it(`carries HTTP to ${what}, from this node and another`, async () => {
      const url = `http://${await target()}:8080/`;
      for (const from of ["inside/caller", "inside/neighbour"]) {
        const { code, stdout, stderr } = await mesh.exec(from, ["curl", "-sS", url]);
        assert.equal(code, 0, stderr);
        assert.match(stdout, /"pod":"far"/);
      }
    });
  }

  it("proves an identity on both sides, in both agents' logs", async () => {
    await call("inside/caller", "who", "far");
    for (const [node, direction] of [
      ["n2", "outbound"],
      ["n1", "inbound"],
    ] as const) {
      const record = await mesh.waitForLog(node, `${direction} from caller`, (line) => {
        return line["direction"] === direction && line["src.workload"] === "caller";
      });
      assert.equal(record["src.identity"], "spiffe://cluster.local/ns/inside/sa/caller");
      assert.equal(record["dst.identity"], "spiffe://cluster.local/ns/inside/sa/far");
    }
  });

  it("shows the server its client's own address, inside the mesh and from outside", async () => {
    for (const from of ["inside/caller", "outside/stranger"]) {
      for (const family of [0, 1] as const) {
        const target = (await mesh.pod("inside/far")).addresses[family] ?? "";
        const { remoteAddress } = await call(from, "who", target);
        const seen = String(remoteAddress).replace("::ffff:", "");
        assert.equal(seen, (await mesh.pod(from)).addresses[family]);
      }
    }
  });

  it("carries 4 MiB each way over 20 parallel connections, byte for byte", async () => {
    const each = Math.ceil((4 * 1024 * 1024) / 20);
    for (const from of ["inside/caller", "outside/stranger"]) {
      const { bytes } = await call(from, "transfer", "far.inside", "20", String(each));
      assert.equal(bytes, 20 * each);
    }
  });

  it("carries plain TCP from the mesh to who is not in it", async () => {
    assert.ok(await getsIn("inside/caller", "plain.outside"));
  });

  it("refuses at once where nobody listens", async () => {
    const address = (await mesh.pod("inside/far")).addresses[0];
    for (const from of CLIENTS) {
      const command = ["curl", "-s", "-m", "5", `http://${address}:9/`];
      const { code } = await mesh.exec(from, command);
      assert.ok(code === 7 || code === 52 || code === 56, `${from}: ${code}`);
    }
  });

  it("lets nobody without an identity in where mTLS is STRICT", async () => {
    await under(peerAuthentication("inside", "STRICT"), CLIENTS.slice(0, 2));
  });

  it("asks policy, by identity", async () => {
    const rule = { from: [{ source: { principals: ["cluster.local/ns/inside/sa/caller"] } }] };
    await under(policy("inside", "allow", "far", "ALLOW", [rule]), ["inside/caller"]);
  });

  it("lets a pod leave and come back", async () => {
    const isAll = (mesh: string) => (status: LocalStatus) =>
      status.pods.every((pod) => pod.namespace !== "inside" || pod.mesh === mesh);
    await mesh.apply(namespace("inside", "none"));
    await mesh.waitFor("nobody to be enrolled", isAll("outside"));
    const { stdout } = await mesh.exec("inside/far", ["nft", "list", "tables"]);
    assert.doesNotMatch(stdout, /aquifer/);
    await eventuallyIn(CLIENTS);
    await mesh.apply(namespace("inside"));
    await mesh.waitFor("pods to be enrolled", isAll("enrolled"));
    await eventuallyIn(CLIENTS);
  });

  it("recovers from the death of an agent", async () => {
    const { nodes } = await mesh.status();
    const before = nodes.find(({ name }) => name === "n1")?.agent;
    process.kill(before?.pid ?? 0, "SIGKILL");
    await mesh.waitFor("another agent", (status) => {
      const agent = status.nodes.find(({ name }) => name === "n1")?.agent;
      return agent?.up === true && agent.pid !== before?.pid;
    });
    await eventuallyIn(CLIENTS);
    const { remoteAddress } = await call("outside/stranger", "who", "far.inside");
    const { addresses } = await mesh.pod("outside/stranger");
    assert.ok(addresses.includes(String(remoteAddress).replace("::ffff:", "")));
  });
});
