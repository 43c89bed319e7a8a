import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { after, before, describe, it } from "node:test";
import { eventually, finish, LocalMesh } from "../support/local-mesh.ts";
import { client, manifests, namespace, peerAuthentication, SERVER } from "../support/manifests.ts";

const STRICT_EGRESS = "aquifer.mesh/strict-egress";

/** A pod that runs server.mjs and is ready as long as it answers HTTP. */
function probed(name: string, annotations: Readonly<Record<string, string>> = {}): string {
  const readinessProbe = {
    httpGet: { path: "/", port: 8080 },
    periodSeconds: 1,
    failureThreshold: 1,
  };
  const command = [process.execPath, SERVER];
  const env = [{ name: "POD_NAME", valueFrom: { fieldRef: { fieldPath: "metadata.name" } } }];
  return JSON.stringify({
    apiVersion: "v1",
    kind: "Pod",
    metadata: { name, namespace: "bank", labels: { app: name }, annotations },
    spec: { nodeName: "n1", containers: [{ name: "main", command, env, readinessProbe }] },
  });
}

const MANIFESTS = manifests(
  namespace("bank"),
  peerAuthentication("bank", "STRICT"),
  probed("vault"),
  probed("mint", { [STRICT_EGRESS]: "enforce" }),
  client("bank", "clerk", "n1"),
);

let mesh: LocalMesh;

before(async () => {
  mesh = await LocalMesh.up({ name: "probes", manifests: MANIFESTS, nodes: 1 });
});
after(async () => {
  await mesh?.down();
});

async function events(): Promise<ReadonlyMap<string, number>> {
  const text = await mesh.getFromNode("n1", 15_020, "/metrics");
  const found = text.matchAll(/^aquifer_datapath_events_total\{event="(\w+)"\} (\d+)$/gm);
  return new Map([...found].map(([, name = "", count]) => [name, Number(count)]));
}

const event = async (name: string) => (await events()).get(name) ?? 0;

/** From the node's network, as any process of the node that is not the prober. */
async function curlFromNode(url: string, options: readonly string[] = []) {
  const { nodes } = await mesh.status();
  const netns = nodes[0]?.netns ?? "";
  const curl = ["curl", "-sS", "-o", "/dev/null", "-m", "5", ...options, url];
  const args = ["netns", "exec", netns, ...curl];
  return (await finish(spawn("ip", args), 10_000)).code;
}

describe("probes of pods that take no plaintext", () => {
  it("come from the node, and succeed", async () => {
    const before = await event("probeLetIn");
    await eventually("more probes", async () => (await event("probeLetIn")) > before + 2);
    assert.ok((await event("probeMarked")) > before);
    assert.equal(await event("probeNotBound"), 0);
    assert.ok((await mesh.pod("bank/vault")).ready);
  });

  it("open the port to no other process of the node", async () => {
    const { addresses } = await mesh.pod("bank/vault");
    const [ipv4 = "", ipv6 = ""] = addresses;
    assert.notEqual(await curlFromNode(`http://${ipv4}:8080/`), 0);
    assert.notEqual(await curlFromNode(`http://[${ipv6}]:8080/`), 0);
  });

  it("open no port that is not declared, whoever has their address", async () => {
    const [ipv4 = ""] = (await mesh.pod("bank/vault")).addresses;
    const before = await event("probeUndeclared");
    const options = ["--interface", "169.254.7.127"];
    assert.notEqual(await curlFromNode(`http://${ipv4}:7001/`, options), 0);
    assert.ok((await event("probeUndeclared")) > before);
  });

  it("say when a program does not answer any more, and when it does again", async () => {
    const { stdout } = await mesh.exec("bank/vault", ["pgrep", "-f", "server.mjs"]);
    const { containers } = await mesh.pod("bank/vault");
    const pid = containers[0]?.pid ?? 0;
    assert.ok(stdout.split("\n").includes(String(pid)), stdout);
    process.kill(pid, "SIGSTOP");
    try {
      await mesh.waitFor("vault not to be ready", ({ pods }) =>
        pods.some(({ name, ready }) => name === "vault" && !ready),
      );
    } finally {
      process.kill(pid, "SIGCONT");
    }
    await mesh.waitFor("vault to be ready again", ({ pods }) =>
      pods.every(({ name, ready }) => name !== "vault" || ready),
    );
  });

  it("go on with the agent that follows one that was killed", async () => {
    const { nodes } = await mesh.status();
    const pid = nodes[0]?.agent?.pid ?? 0;
    process.kill(pid, "SIGKILL");
    await mesh.waitFor("another agent", (status) => {
      const agent = status.nodes[0]?.agent;
      return agent?.up === true && agent.pid !== pid;
    });
    const before = await event("probeLetIn");
    await eventually("more probes", async () => (await event("probeLetIn")) > before + 1);
    const { pods } = await mesh.status();
    assert.ok(pods.every(({ ready }) => ready));
  });
});

describe("strict egress of a pod that asks for it", () => {
  const udp = `
import errno, socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
try: s.sendto(b"x", (sys.argv[1], 9999)); print("sent")
except OSError as error: print(errno.errorcode[error.errno])`;

  it("blocks what would leave past the mesh, and no other pod's", async () => {
    const to = (await mesh.pod("bank/vault")).addresses[0] ?? "";
    const send = async (from: string) => {
      const { stdout } = await mesh.exec(from, ["/usr/bin/python3", "-c", udp, to]);
      return stdout.trim();
    };
    assert.equal(await send("bank/mint"), "EPERM");
    assert.equal(await send("bank/clerk"), "sent");
    assert.ok((await event("strictBlockedProtocol")) >= 1);
  });

  it("leaves it its connections", async () => {
    const { code, stderr } = await mesh.exec("bank/mint", [
      ...["curl", "-sS", "-o", "/dev/null", "-m", "5"],
      `http://${(await mesh.pod("bank/vault")).addresses[0]}:8080/`,
    ]);
    assert.equal(code, 0, stderr);
  });

  it("keeps a pod out whose annotation says neither report nor enforce", async () => {
    const yaml = probed("forger", { [STRICT_EGRESS]: "on" });
    await mesh.apply(yaml);
    const status = await mesh.waitFor("the agent's word", ({ pods }) =>
      pods.some(({ name, message }) => {
        return name === "forger" && message.includes("expected report or enforce");
      }),
    );
    assert.ok(status.pods.every(({ name, ready }) => name !== "forger" || !ready));
    await mesh.delete(yaml);
  });
});
