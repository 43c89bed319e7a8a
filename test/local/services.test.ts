import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { eventually, LocalMesh } from "../support/local-mesh.ts";
import { documents, namespace, pod, server } from "./manifests.ts";

const HEADLESS = `apiVersion: v1
kind: Service
metadata: { name: web-each, namespace: shop }
spec:
  clusterIP: None
  selector: { app: web }
  ports: [{ port: 8080 }]
`;
const EXTERNAL = `apiVersion: v1
kind: Service
metadata: { name: elsewhere, namespace: shop }
spec: { type: ExternalName, externalName: web.shop.svc.cluster.local }
`;
const UDP = `apiVersion: v1
kind: Service
metadata: { name: echo, namespace: shop }
spec:
  selector: { app: echo }
  ports: [{ port: 7, targetPort: 7007, protocol: UDP }]
`;
const UDP_SERVER = `
  const socket = require("node:dgram").createSocket("udp6");
  socket.on("message", (text, from) => socket.send(text, from.port, from.address));
  socket.bind(7007);
`;
const UDP_CLIENT = `
  const socket = require("node:dgram").createSocket("udp4");
  socket.on("message", (text) => { console.log(String(text)); process.exit(0); });
  socket.send("hello", 7, process.argv[1]);
  setTimeout(() => process.exit(1), 5000);
`;

describe("services, without a mesh", () => {
  let cluster: LocalMesh;
  const curl = async (from: string, ...args: readonly string[]) => {
    const common = ["curl", "--silent", "--show-error", "--max-time", "5"];
    return cluster.exec(from, [...common, ...args]);
  };
  const answers = async (from: string, ...args: readonly string[]) => {
    const { code, stdout, stderr } = await curl(from, ...args);
    assert.equal(code, 0, stderr);
    return stdout.split(" ")[0] ?? "";
  };

  before(async () => {
    cluster = await LocalMesh.up({
      name: "services",
      mesh: false,
      manifests: documents(
        namespace("shop"),
        namespace("street"),
        server({ replicas: 2 }),
        HEADLESS,
        EXTERNAL,
        UDP,
        pod("echo", { command: ["node", "-e", UDP_SERVER], node: "n2" }),
        pod("near", { node: "n1" }),
        pod("far", { namespace: "street", node: "n2" }),
      ),
    });
  });
  after(() => cluster?.down());

  for (const family of ["-4", "-6"]) {
    it(`reaches pods of both nodes by name (curl ${family})`, async () => {
      const { pods } = await cluster.status();
      const servers = pods.filter(({ name }) => name.startsWith("web-"));
      assert.deepEqual(servers.map(({ node }) => node).toSorted(), ["n1", "n2"]);
      const seen = new Set<string>();
      await eventually("an answer of each server", async () => {
        seen.add(await answers("shop/near", family, "http://web/"));
        return seen.size === 2;
      });
      assert.deepEqual([...seen].toSorted(), servers.map(({ name }) => name).toSorted());
    });

    it(`lets a pod reach itself through its service (curl ${family})`, async () => {
      const { name } = await cluster.pod("shop/web");
      await eventually("an answer of its own", async () => {
        return (await answers(`shop/${name}`, family, "http://web/")) === name;
      });
    });

    it(`refuses a port that the service does not have (curl ${family})`, async () => {
      const { code, stderr } = await curl("shop/near", family, "http://web:81/");
      assert.equal(code, 7, stderr);
    });
  }

  it("shows the server the client's own address", async () => {
    const near = await cluster.pod("shop/near");
    const { stdout } = await curl("shop/near", "-6", "http://web/");
    assert.equal(stdout.trim().split(" ")[1], near.addresses[1]);
  });

  it("knows the names that Kubernetes has", async () => {
    for (const name of ["web.shop", "web.shop.svc", "web.shop.svc.cluster.local"]) {
      assert.match(await answers("street/far", `http://${name}/`), /^web-/);
    }
    assert.match(await answers("shop/near", "http://elsewhere/"), /^web-/);
    const { code } = await cluster.exec("street/far", ["getent", "hosts", "web"]);
    assert.equal(code, 2, "a short name is one of the pod's own namespace");
  });

  it("answers a headless service with the addresses of its pods", async () => {
    const { stdout } = await cluster.exec("shop/near", ["getent", "ahostsv4", "web-each"]);
    const { pods } = await cluster.status();
    const servers = pods.filter(({ name }) => name.startsWith("web-"));
    const found = new Set(
      stdout
        .trim()
        .split("\n")
        .map((line) => line.split(/\s+/)[0]),
    );
    assert.deepEqual([...found].toSorted(), servers.map((each) => each.addresses[0]).toSorted());
  });

  it("carries UDP", async () => {
    const { services } = await cluster.status();
    const address = services.find(({ name }) => name === "echo")?.addresses[0] ?? "";
    const sent = await cluster.exec("shop/near", ["node", "-e", UDP_CLIENT, address]);
    assert.deepEqual([sent.code, sent.stdout], [0, "hello\n"]);
  });

  it("answers DNS over TCP as well", async () => {
    const script = `
      const dns = require("node:dns"), { Resolver } = dns.promises;
      new Resolver().resolve4("web.shop.svc.cluster.local").then((all) => console.log(all[0]));
    `;
    const { services } = await cluster.status();
    const address = services.find(({ name }) => name === "web")?.addresses[0];
    const overTcp = ["env", "RES_OPTIONS=use-vc", "getent", "ahostsv4", "web"];
    const { stdout } = await cluster.exec("shop/near", overTcp);
    assert.equal(stdout.split(/\s+/)[0], address);
    const direct = await cluster.exec("shop/near", ["node", "-e", script]);
    assert.equal(direct.stdout.trim(), address);
  });

  it("refuses connections while no pod is ready, and serves again when one is", async () => {
    await cluster.apply(server({ replicas: 0 }));
    await cluster.waitFor("no servers", ({ pods }) => pods.every((p) => !p.name.startsWith("web")));
    await eventually("a refusal", async () => (await curl("shop/near", "http://web/")).code === 7);
    await cluster.apply(server({ replicas: 1 }));
    await eventually("an answer", async () => (await curl("shop/near", "http://web/")).code === 0);
  });
});
