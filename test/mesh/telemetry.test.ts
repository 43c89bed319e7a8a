import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { after, before, describe, it } from "node:test";
import { eventually, finish, LocalMesh } from "../support/local-mesh.ts";
import { client, manifests, namespace, server, service } from "../support/manifests.ts";

const MANIFESTS = manifests(
  namespace("shop"),
  server("shop", "web", "n1"),
  service("shop", "web", [8080]),
  client("shop", "caller", "n2"),
);

let mesh: LocalMesh;

before(async () => {
  mesh = await LocalMesh.up({ name: "telemetry", manifests: MANIFESTS });
  await eventually("a request to be answered", async () => {
    const command = ["curl", "-s", "-m", "5", "http://web:8080/"];
    return (await mesh.exec("shop/caller", command)).code === 0;
  });
});
after(async () => {
  await mesh?.down();
});

async function promtool(text: string): Promise<void> {
  const child = spawn("promtool", ["check", "metrics"]);
  child.stdin.end(text);
  const { code, stdout, stderr } = await finish(child, 30_000);
  assert.equal(code, 0, `${stdout}${stderr}`);
}

describe("metrics", () => {
  it("of agents pass promtool, and tell of the connection at both ends", async () => {
    for (const [node, reporter] of [
      ["n1", "destination"],
      ["n2", "source"],
    ] as const) {
      const metrics = await mesh.getFromNode(node, 15_020, "/metrics");
      await promtool(metrics);
      const line = metrics.split("\n").find((candidate) => {
        return (
          candidate.startsWith("istio_tcp_connections_opened_total{") &&
          candidate.includes(`reporter="${reporter}"`)
        );
      });
      for (const label of [
        'source_principal="spiffe://cluster.local/ns/shop/sa/caller"',
        'destination_principal="spiffe://cluster.local/ns/shop/sa/web"',
        'destination_service="web.shop.svc.cluster.local"',
        'connection_security_policy="mutual_tls"',
        'response_flags="-"',
      ]) {
        assert.ok(line?.includes(label), `${label} in ${line}`);
      }
    }
  });

  it("of control pass promtool", async () => {
    const { fabric } = await mesh.status();
    const url = "http://127.0.0.1:15014/metrics";
    const child = spawn("ip", ["netns", "exec", fabric.netns, "curl", "-sS", url]);
    const { code, stdout, stderr } = await finish(child, 10_000);
    assert.equal(code, 0, stderr);
    await promtool(stdout);
  });
});

describe("the agent's admin", () => {
  it("dumps what it knows, in ztunnel's shape, without keys", async () => {
    const text = await mesh.getFromNode("n1", 15_000, "/config_dump");
    const dump = JSON.parse(text) as Record<string, readonly Record<string, unknown>[]>;
    const web = dump["workloads"]?.find(({ name }) => name === "web");
    assert.equal(web?.["protocol"], "HBONE");
    assert.deepEqual(web?.["workloadIps"], (await mesh.pod("shop/web")).addresses);
    assert.ok(dump["services"]?.some(({ hostname }) => hostname === "web.shop.svc.cluster.local"));
    const [certificate] = dump["certificates"] ?? [];
    assert.equal(certificate?.["identity"], "spiffe://cluster.local/ns/shop/sa/web");
    assert.equal(certificate?.["state"], "Available");
    assert.doesNotMatch(text, /PRIVATE KEY/);
  });

  it("is ready", async () => {
    await mesh.getFromNode("n1", 15_021, "/healthz/ready");
  });
});
