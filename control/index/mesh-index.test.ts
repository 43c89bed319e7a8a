import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { isDeepStrictEqual } from "node:util";
import fc from "fast-check";
import type { PolicyKey, ServiceKey, WorkloadUid } from "#core/service/workload.ts";
import { difference } from "#core/snapshot.ts";
import { rawObjectFromJson } from "../resources/fixtures.ts";
import { ObjectRegister } from "../resources/register.ts";
import { authentication, authorization, Mesh, pod, SETTINGS, service, WEB } from "./fixtures.ts";
import { MeshIndex } from "./mesh-index.ts";

const KEY = "shop/web.shop.svc.cluster.local" as ServiceKey;

describe("MeshIndex workloads", () => {
  it("are all pods with an address that have not come to their end", () => {
    const mesh = new Mesh(
      pod("a"),
      pod("waiting", { status: { phase: "Pending", conditions: [] } }),
      pod("without-address", { ip: "" }),
      pod("done", { status: { phase: "Succeeded" } }),
      pod("failed", { status: { phase: "Failed" } }),
    );
    assert.deepEqual(
      [...mesh.index.current().workloads.keys()],
      ["Kubernetes//Pod/shop/a", "Kubernetes//Pod/shop/waiting"],
    );
    assert.equal(mesh.workload("a").healthy, true);
    assert.equal(mesh.workload("waiting").healthy, false);
  });

  it("are reached through tunnels where they are captured, or end tunnels themselves", () => {
    const annotations = { "ambient.istio.io/redirection": "enabled" };
    const mesh = new Mesh(
      pod("plain", { annotations: { "ambient.istio.io/redirection": "pending" } }),
      pod("captured", { annotations }),
      pod("native", { labels: { "networking.istio.io/tunnel": "http" } }),
    );
    assert.equal(mesh.workload("plain").tunnelProtocol, "none");
    assert.equal(mesh.workload("captured").tunnelProtocol, "hbone");
    assert.equal(mesh.workload("captured").nativeTunnel, false);
    assert.equal(mesh.workload("native").tunnelProtocol, "hbone");
    assert.equal(mesh.workload("native").nativeTunnel, true);
  });

  it("have canonical names by their labels, in Istio's order", () => {
    const all = {
      "service.istio.io/canonical-name": "canonical",
      "app.kubernetes.io/name": "recommended",
      app: "plain",
      "service.istio.io/canonical-revision": "v9",
      version: "v1",
    };
    const { "service.istio.io/canonical-name": _canonical, ...recommended } = all;
    const mesh = new Mesh(pod("a", { labels: all }), pod("b", { labels: recommended }), pod("c"));
    assert.equal(mesh.workload("a").canonicalName, "canonical");
    assert.equal(mesh.workload("a").canonicalRevision, "v9");
    assert.equal(mesh.workload("b").canonicalName, "recommended");
    assert.equal(mesh.workload("c").canonicalName, "c");
    assert.equal(mesh.workload("c").canonicalRevision, "latest");
  });

  it("belong to services that select them, at the ports that their containers have", () => {
    const ports = [
      { name: "a", port: 80, targetPort: "http" },
      { name: "b", port: 81, targetPort: 8081 },
      { name: "c", port: 82, targetPort: "absent" },
    ];
    const mesh = new Mesh(
      service("web", { selector: { app: "web" }, ports }),
      service("other", { selector: { app: "other" } }),
      service("web", { selector: { app: "web" } }, "elsewhere"),
      service("alias", { type: "ExternalName", externalName: "a.b", selector: { app: "web" } }),
      pod("web", { labels: { app: "web", x: "y" } }),
    );
    const expected = new Map([
      [
        KEY,
        new Map([
          [80, 8080],
          [81, 8081],
        ]),
      ],
    ]);
    assert.deepEqual(mesh.workload("web").services, expected);
  });

  const SLICE = {
    apiVersion: "discovery.k8s.io/v1",
    kind: "EndpointSlice",
    metadata: {
      name: "web-1",
      namespace: "shop",
      labels: { "kubernetes.io/service-name": "web" },
    },
    addressType: "IPv4",
    ports: [{ port: 9999 }],
    endpoints: [
      { addresses: ["10.244.1.5"], targetRef: { kind: "Pod", name: "web" } },
      { addresses: ["192.0.2.7"], nodeName: "n2", conditions: { ready: false } },
    ],
  };

  it("belong to services without a selector where a slice says so", () => {
    const mesh = new Mesh(service("web", {}), JSON.stringify(SLICE), pod("web"));
    assert.deepEqual(mesh.workload("web").services, new Map([[KEY, new Map([[80, 9999]])]]));
  });

  it("are endpoints of slices, too, where these are no pods", () => {
    const mesh = new Mesh(service("web", {}), JSON.stringify(SLICE), pod("web"));
    const uid = "Kubernetes/discovery.k8s.io/EndpointSlice/shop/web-1/192.0.2.7" as WorkloadUid;
    const endpoint = mesh.index.current().workloads.get(uid);
    assert.equal(endpoint?.hostNetwork, true);
    assert.equal(endpoint?.healthy, false);
    assert.equal(endpoint?.tunnelProtocol, "none");
    assert.deepEqual(endpoint?.services, new Map([[KEY, new Map([[80, 9999]])]]));
    assert.equal(mesh.index.current().workloads.size, 2);
  });

  it("are told where two have one address, unless it is their node's", () => {
    const host = { spec: { hostNetwork: true } };
    const mesh = new Mesh(pod("a"), pod("b"), pod("c", host), pod("d", host));
    assert.equal(mesh.index.current().workloads.size, 4);
    assert.deepEqual(mesh.problems, [
      "test.json:1: Pod shop/b: status.podIP: address 10.244.1.5 belongs to Pod shop/a " +
        "(test.json:1) as well; it is not certain who answers there",
    ]);
  });

  it("are where their node is, and in the network of the root namespace's label", () => {
    const node = {
      apiVersion: "v1",
      kind: "Node",
      metadata: {
        name: "n1",
        labels: { "topology.kubernetes.io/region": "r", "topology.kubernetes.io/zone": "z" },
      },
    };
    const root = {
      apiVersion: "v1",
      kind: "Namespace",
      metadata: { name: "istio-system", labels: { "topology.istio.io/network": "west" } },
    };
    const away = pod("away", { labels: { "topology.istio.io/network": "east" } });
    const mesh = new Mesh(JSON.stringify(node), JSON.stringify(root), pod("a"), away);
    assert.deepEqual(mesh.workload("a").locality, { region: "r", zone: "z", subzone: "" });
    assert.equal(mesh.workload("a").network, "west");
    assert.equal(mesh.workload("away").network, "east");
  });
});

describe("MeshIndex services", () => {
  it("have their addresses as blocks of one, and port 0 where endpoints say the number", () => {
    const spec = { clusterIP: "10.96.0.1", clusterIPs: ["10.96.0.1", "fd96::1"] };
    const built = new Mesh(service("web", spec)).index.current().services.get(KEY);
    assert.deepEqual(built?.addresses, [
      { network: "", block: { address: "10.96.0.1", length: 32 } },
      { network: "", block: { address: "fd96::1", length: 128 } },
    ]);
    assert.deepEqual(built?.ports, [{ port: 80, targetPort: 0, appProtocol: "unknown" }]);
    assert.equal(built?.canonical, true);
  });

  it("leave out those that are only a name for another", () => {
    const mesh = new Mesh(service("web", { type: "ExternalName", externalName: "a.b" }));
    assert.equal(mesh.index.current().services.size, 0);
  });

  it("keep an address that a later one wants, which is told", () => {
    const first = service("web", { clusterIP: "10.96.0.1" });
    const second = service("thief", { clusterIP: "10.96.0.1" });
    const mesh = new Mesh(first, second);
    const thief = "shop/thief.shop.svc.cluster.local" as ServiceKey;
    assert.equal(mesh.index.current().services.get(KEY)?.addresses.length, 1);
    assert.equal(mesh.index.current().services.get(thief)?.addresses.length, 0);
    assert.deepEqual(mesh.problems, [
      "test.json:1: Service shop/thief: spec.clusterIP: address 10.96.0.1 belongs to Service " +
        "shop/web (test.json:1); it is not served for this service",
    ]);
    mesh.set(second);
    assert.equal(mesh.index.current().services.get(thief)?.addresses.length, 1);
    assert.deepEqual(mesh.problems, []);
  });

  it("keep an address that an earlier one comes to want", () => {
    const mesh = new Mesh(
      service("early", { clusterIP: "10.96.0.2" }),
      service("web", { clusterIP: "10.96.0.1" }),
    );
    mesh.set(
      service("early", { clusterIP: "10.96.0.1" }),
      service("web", { clusterIP: "10.96.0.1" }),
    );
    assert.equal(mesh.index.current().services.get(KEY)?.addresses.length, 1);
    assert.match(mesh.problems.join(), /^test.json:1: Service shop\/early: /);
  });
});

describe("MeshIndex policies", () => {
  it("are named by the workloads that they select, also from the root namespace", () => {
    const mesh = new Mesh(
      authorization("b", WEB),
      authorization("a", WEB),
      authorization("whole", {}),
      authorization("other", WEB, "elsewhere"),
      authorization("root", WEB, "istio-system"),
      pod("web", { labels: { app: "web" } }),
      pod("api", { labels: { app: "api" } }),
    );
    assert.deepEqual(mesh.workload("web").policies, ["istio-system/root", "shop/a", "shop/b"]);
    assert.deepEqual(mesh.workload("api").policies, []);
    assert.equal(mesh.index.current().policies.size, 5);
  });

  it("stay in their last good version, which is told", () => {
    const good = { rules: [{ from: [{ source: { namespaces: ["a"] } }] }] };
    const bad = { rules: [{ from: [{ source: { namespaces: [7] } }] }] };
    const mesh = new Mesh(authorization("web", good));
    const before = mesh.index.current();
    mesh.set(authorization("web", bad));
    assert.equal(mesh.index.current(), before);
    assert.deepEqual(mesh.problems, [
      "test.json:1: AuthorizationPolicy shop/web: spec.rules[0].from[0].source.namespaces[0]: " +
        "expected a string, got 7, write it in quotes; the last good version stays in force",
    ]);
    mesh.set(authorization("web", bad).replace("7", "8"));
    assert.equal(mesh.index.current(), before);
    mesh.set(authorization("web", good));
    assert.deepEqual(mesh.problems, []);
    mesh.set();
    assert.equal(mesh.index.current().policies.size, 0);
  });

  it("fail closed where they were never good", () => {
    const mesh = new Mesh(authorization("web", { ...WEB, action: "DENY", rules: [{ x: 1 }] }));
    const policy = mesh.index.current().policies.get("shop/web" as PolicyKey);
    assert.deepEqual([policy?.action, policy?.rules], ["deny", [[]]]);
    assert.match(mesh.problems.join(), /; until it is mended it denies every connection to the w/);
    mesh.set(authorization("web", { ...WEB, rules: [{ x: 1 }] }));
    assert.match(mesh.problems.join(), /; until it is mended it allows nothing to the workloads/);
  });
});

describe("MeshIndex after any changes", () => {
  const rules = (port: string) => ({ rules: [{ to: [{ operation: { ports: [port] } }] }] });
  const VARIANTS: readonly (readonly string[])[] = [
    [service("web", { clusterIP: "10.96.0.1", selector: { app: "web" } })],
    [service("web", { clusterIP: "10.96.0.2", selector: { app: "api" } })],
    [service("web", { clusterIP: "nonsense" })],
    [service("rival", { clusterIP: "10.96.0.1", selector: {} })],
    [service("rival", { clusterIP: "10.96.0.2" })],
    [pod("web", { labels: { app: "web" } })],
    [pod("web", { labels: { app: "api" }, ip: "10.244.1.9" })],
    [pod("web", { labels: { app: "web" }, status: { podIP: "x" } })],
    [pod("api", { labels: { app: "api" } })],
    [authorization("a", { ...WEB, ...rules("80") })],
    [authorization("a", { ...WEB, ...rules("x") })],
    [authorization("b", { action: "DENY", ...rules("x") }, "istio-system")],
    [authentication("d", { mtls: { mode: "STRICT" } }), authentication("w", WEB)],
    [authentication("d", { mtls: { mode: "WRONG" } }, "istio-system")],
    [authentication("w", { ...WEB, portLevelMtls: { 80: { mode: "STRICT" } } })],
  ];
  const steps = fc.array(
    fc.record({
      deleted: fc.subarray([...VARIANTS.keys()]),
      upserted: fc.subarray([...VARIANTS.keys()], { maxLength: 4 }),
    }),
    { maxLength: 12 },
  );
  const variants = VARIANTS.map((texts) => texts.map(rawObjectFromJson));
  const objectsOf = (indexes: readonly number[]) =>
    indexes.flatMap((index) => variants[index] ?? []);

  it("names no policy that is not there, gives no address twice, and keeps what is equal", () => {
    fc.assert(
      fc.property(steps, (changes) => {
        const register = new ObjectRegister(SETTINGS);
        const index = new MeshIndex(SETTINGS);
        for (const { deleted, upserted } of changes) {
          const before = index.current();
          register.apply({
            deleted: objectsOf(deleted).map(({ id }) => id),
            upserted: objectsOf(upserted),
            problems: [],
          });
          index.update(register.objects);
          const { workloads, services, policies } = index.current();
          for (const workload of workloads.values()) {
            for (const key of workload.policies) assert.ok(policies.has(key), key);
            const known = before.workloads.get(workload.uid);
            assert.equal(known === workload, isDeepStrictEqual(known, workload));
          }
          const addresses = [...services.values()].flatMap((one) => one.addresses);
          const distinct = new Set(addresses.map(({ block }) => block.address));
          assert.equal(distinct.size, addresses.length);
        }
        const anew = new MeshIndex(SETTINGS);
        anew.update(register.objects);
        const last = index.current();
        assert.deepEqual(anew.current().workloads, last.workloads);
        assert.deepEqual(anew.current().policies, last.policies);
      }),
      { numRuns: 150 },
    );
  });
});

describe("MeshIndex", () => {
  const objects = [
    service("web", { clusterIP: "10.96.0.1", selector: { app: "web" } }),
    authorization("web", WEB),
    authentication("default", { mtls: { mode: "STRICT" } }),
    pod("web", { labels: { app: "web" } }),
    pod("api", { ip: "10.244.1.6" }),
  ];

  it("keeps everything that did not change, and tells nobody where nothing did", () => {
    const mesh = new Mesh(...objects);
    const before = mesh.index.current();
    let calls = 0;
    const stop = mesh.index.onChange(() => calls++);
    mesh.set(...objects);
    mesh.set(...objects.map((text) => text.replace('"status":{', '"status":{"hostIP":"1.2.3.4",')));
    assert.equal(mesh.index.current(), before);
    assert.equal(calls, 0);
    mesh.set(...objects, pod("new"));
    assert.equal(calls, 1);
    stop();
    mesh.set(...objects);
    assert.equal(calls, 1);
  });

  it("makes anew only what has a part in a change", () => {
    const mesh = new Mesh(...objects);
    const before = mesh.index.current();
    const [web = "", ...others] = objects;
    mesh.set(web.replace('"port":80', '"port":90'), ...others);
    const next = mesh.index.current();
    const names = (list: readonly { name: string }[]) => list.map(({ name }) => name);
    assert.deepEqual(names(difference(before.workloads, next.workloads).changed), ["web"]);
    assert.deepEqual(names(difference(before.services, next.services).changed), ["web"]);
    assert.deepEqual(names(difference(before.policies, next.policies).changed), []);
  });

  it("makes anew the workloads whose policies changed", () => {
    const mesh = new Mesh(...objects);
    const before = mesh.index.current();
    mesh.set(...objects, authorization("second", WEB));
    const { changed } = difference(before.workloads, mesh.index.current().workloads);
    assert.deepEqual(
      changed.map(({ name, policies }) => [name, policies.length]),
      [["web", 3]],
    );
  });

  it("knows which identities run on a node", () => {
    const spec = { serviceAccountName: "cart" };
    const mesh = new Mesh(
      pod("a", { spec }),
      pod("b", { spec }),
      pod("c"),
      pod("d", { namespace: "bank" }),
      pod("elsewhere", { spec: { nodeName: "n2" } }),
      pod("done", { spec: { serviceAccountName: "job" }, status: { phase: "Succeeded" } }),
      pod("starting", {
        spec: { serviceAccountName: "new" },
        ip: "",
        status: { phase: "Pending" },
      }),
    );
    assert.deepEqual(mesh.index.podsOnNode("n1"), [
      { namespace: "shop", serviceAccount: "cart" },
      { namespace: "shop", serviceAccount: "default" },
      { namespace: "bank", serviceAccount: "default" },
      { namespace: "shop", serviceAccount: "new" },
    ]);
    assert.deepEqual(mesh.index.podsOnNode("unknown"), []);
  });

  it("takes a change to one of ten thousand pods in less than a second", () => {
    const many = Array.from({ length: 10_000 }, (_, index) => {
      const ip = `10.${index >> 16}.${(index >> 8) & 255}.${index & 255}`;
      return pod(`p${index}`, {
        namespace: `n${index % 50}`,
        ip,
        labels: { app: `a${index % 7}` },
      });
    });
    const services = Array.from({ length: 350 }, (_, index) =>
      service(`s${index}`, { selector: { app: `a${index % 7}` } }, `n${index % 50}`),
    );
    const mesh = new Mesh(...many, ...services);
    const previous = mesh.index.current();
    const raw = rawObjectFromJson(pod("p0", { namespace: "n0", ip: "10.9.9.9" }));
    mesh.register.apply({ upserted: [raw], deleted: [], problems: [] });
    // Of this process alone: the machine may be busy with other tests.
    const before = process.cpuUsage();
    mesh.index.update(mesh.register.objects);
    const { user, system } = process.cpuUsage(before);
    const { changed } = difference(previous.workloads, mesh.index.current().workloads);
    assert.equal(changed.length, 1);
    const tookMs = (user + system) / 1_000;
    assert.ok(tookMs < 1_000, `took ${tookMs} ms`);
  });
});
