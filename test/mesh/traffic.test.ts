import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { after, before, describe, it } from "node:test";
import { eventually, LocalMesh } from "../support/local-mesh.ts";
import {
  CLIENT,
  client,
  manifests,
  namespace,
  pod,
  server,
  service,
} from "../support/manifests.ts";

const PORTS = [7001, 7002, 7003, 7004, 7005, 7006, 8080, 8081, 8082];
const NGINX_CONF = new URL("apps/nginx.conf", import.meta.url).pathname;

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
  client("outside", "passer", "n1"),
  pod("inside", "nginx", {
    node: "n1",
    command: ["nginx", "-c", NGINX_CONF],
    readyPort: 8090,
  }),
  service("inside", "nginx", [8090]),
);

let mesh: LocalMesh;

before(async () => {
  mesh = await LocalMesh.up({ name: "traffic", manifests: MANIFESTS });
});
after(async () => {
  await mesh?.down();
});

/** Runs client.mjs in a pod. @returns what it printed last */
async function call(from: string, ...args: readonly string[]): Promise<Record<string, unknown>> {
  const { code, stdout, stderr } = await mesh.exec(from, [process.execPath, CLIENT, ...args]);
  assert.equal(code, 0, `${args.join(" ")} from ${from}: ${stderr}${stdout}`);
  return JSON.parse(stdout.trim().split("\n").at(-1) ?? "") as Record<string, unknown>;
}

async function addressOf(name: string, family: 0 | 1 = 0): Promise<string> {
  return (await mesh.pod(name)).addresses[family] ?? "";
}

/**
 * The one record that the agent of a node wrote of a connection, for requests with a unique path.
 */
async function recordOf(node: string, direction: string, from: string, to: string) {
  return mesh.waitForLog(node, `${direction} from ${from} to ${to}`, (line) => {
    return (
      line["direction"] === direction &&
      line["src.workload"] === from &&
      line["dst.workload"] === to &&
      line["message"] === "connection complete"
    );
  });
}

describe("traffic between nodes, in the mesh", () => {
  for (const [what, target] of [
    ["a service's name", async () => "far"],
    ["a service's full name", async () => "far.inside.svc.cluster.local"],
    ["a pod's IPv4 address", async () => addressOf("inside/far")],
    ["a pod's IPv6 address", async () => `[${await addressOf("inside/far", 1)}]`],
  ] as const) {
    it(`carries HTTP to ${what}`, async () => {
      const url = `http://${await target()}:8080/`;
      const { code, stdout, stderr } = await mesh.exec("inside/caller", ["curl", "-sS", url]);
      assert.equal(code, 0, stderr);
      assert.match(stdout, /"pod":"far"/);
    });
  }

  it("carries HTTP to a service over IPv4 and over IPv6", async () => {
    for (const family of ["-4", "-6"]) {
      const command = ["curl", family, "-sS", "http://far:8080/"];
      const { code, stderr } = await mesh.exec("inside/caller", command);
      assert.equal(code, 0, stderr);
    }
  });

  it("proves an identity on both sides, in both agents' logs", async () => {
    await call("inside/caller", "who", "far");
    for (const [node, direction] of [
      ["n2", "outbound"],
      ["n1", "inbound"],
    ] as const) {
      const record = await recordOf(node, direction, "caller", "far");
      assert.equal(record["src.identity"], "spiffe://cluster.local/ns/inside/sa/caller");
      assert.equal(record["dst.identity"], "spiffe://cluster.local/ns/inside/sa/far");
    }
  });

  it("shows the server its client's own address, over IPv4 and IPv6", async () => {
    for (const family of [0, 1] as const) {
      const { remoteAddress } = await call(
        "inside/caller",
        "who",
        await addressOf("inside/far", family),
      );
      const seen = String(remoteAddress).replace("::ffff:", "");
      assert.equal(seen, await addressOf("inside/caller", family));
    }
  });

  it("carries 64 MiB each way over 100 parallel connections, byte for byte", async () => {
    const each = Math.ceil((64 * 1024 * 1024) / 100);
    const { bytes } = await call("inside/caller", "transfer", "far", "100", String(each));
    assert.equal(bytes, 100 * each);
  });

  it("keeps the direction open that the other end did not close", async () => {
    const answer = await call("inside/caller", "halfClose", "far", "300000");
    assert.deepEqual(answer, { received: 300_000, sentAfterEnd: 300_000 });
    // What the client sent after the server's end counts only once the server has it.
    const log = (await mesh.pod("inside/far")).containers[0]?.log ?? "";
    await eventually("the server to have received it all", () => {
      return readFileSync(log, "utf8").includes('"port":7003,"line":"300000","received":300000');
    });
  });

  it("lets the server speak first", async () => {
    const answer = await call("inside/caller", "serverFirst", "far");
    assert.deepEqual(answer, { greeting: "220 ready\r\n", rest: "bye\r\n" });
  });

  it("delivers a reset as a reset", async () => {
    assert.deepEqual(await call("inside/caller", "reset", "far"), { outcome: "ECONNRESET" });
  });

  it("carries gRPC and WebSocket", async () => {
    const rpc = await call("inside/caller", "grpc", "far", "1000");
    assert.deepEqual(rpc, { code: 0, answers: 1_000, last: "m999" });
    assert.deepEqual(await call("inside/caller", "webSocket", "far"), { answer: "hello" });
  });

  it("carries nginx to Python's client", async () => {
    const script =
      "import urllib.request as r; print(r.urlopen('http://nginx:8090/').read().decode())";
    const { code, stdout, stderr } = await mesh.exec("inside/caller", ["python3", "-c", script]);
    assert.equal(code, 0, stderr);
    assert.match(stdout, /from nginx/);
  });

  it("refuses a port where nobody listens, at once", async () => {
    const url = `http://${await addressOf("inside/far")}:9999/`;
    const { code } = await mesh.exec("inside/caller", ["curl", "-sS", "-m", "10", url]);
    assert.ok(code === 7 || code === 56, `curl exited with ${code}`);
  });
});

describe("traffic on one node, in the mesh", () => {
  it("carries the same, with identities", async () => {
    const { bytes } = await call("inside/neighbour", "transfer", "far", "10", "100000");
    assert.equal(bytes, 1_000_000);
    const record = await recordOf("n1", "inbound", "neighbour", "far");
    assert.equal(record["src.identity"], "spiffe://cluster.local/ns/inside/sa/neighbour");
  });

  it("lets a pod reach itself by its address, untouched, and by its service", async () => {
    for (const target of [await addressOf("inside/far"), "127.0.0.1", "far"]) {
      const url = `http://${target}:8080/`;
      const { code, stderr } = await mesh.exec("inside/far", ["curl", "-sS", url]);
      assert.equal(code, 0, `${target}: ${stderr}`);
    }
  });
});

describe("traffic across the mesh's border", () => {
  for (const from of ["outside/stranger", "outside/passer"]) {
    it(`lets ${from} in without an identity, where nothing is strict`, async () => {
      const { bytes } = await call(from, "transfer", "far.inside", "10", "100000");
      assert.equal(bytes, 1_000_000);
      const record = await recordOf("n1", "inbound", from.slice("outside/".length), "far");
      assert.equal(record["src.identity"], undefined);
    });
  }

  for (const from of ["inside/caller", "inside/neighbour"]) {
    it(`lets ${from} out to a service outside of the mesh, in the clear`, async () => {
      const { bytes } = await call(from, "transfer", "plain.outside", "10", "100000");
      assert.equal(bytes, 1_000_000);
    });
  }

  it("leaves traffic between pods outside of the mesh alone", async () => {
    const { remoteAddress } = await call(
      "outside/stranger",
      "who",
      await addressOf("outside/plain"),
    );
    const seen = String(remoteAddress).replace("::ffff:", "");
    assert.equal(seen, await addressOf("outside/stranger"));
  });
});
