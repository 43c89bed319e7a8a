import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import type { LocalStatus, PodStatus } from "#core/local-api.ts";
import { eventually, LocalMesh } from "../support/local-mesh.ts";
import { aquifer } from "./command.ts";
import { documents, namespace, pod, server } from "./manifests.ts";

const CRASHING = pod("crashing", { command: ["sh", "-c", "echo once more; sleep 0.2; exit 5"] });
const ONE_SHOT = pod("one-shot", {
  command: ["sh", "-c", "echo done"],
  spec: "  restartPolicy: Never",
});
const FIELDS = pod("fields", {
  node: "n2",
  command: ["sh", "-c", "exec sleep infinity"],
  container: `    workingDir: /usr
    args: []
    env:
    - { name: WHERE, valueFrom: { fieldRef: { fieldPath: spec.nodeName } } }
    - { name: ADDRESS, valueFrom: { fieldRef: { fieldPath: status.podIP } } }
    - { name: ACCOUNT, valueFrom: { fieldRef: { fieldPath: spec.serviceAccountName } } }
    - { name: ALL, value: $(WHERE)/$(ACCOUNT)/$$(WHERE)/$(UNKNOWN) }
`,
});
const LIVENESS = `        livenessProbe: { httpGet: { path: /healthz, port: http }, periodSeconds: 1, failureThreshold: 1 }
`;
const EXEC_PROBE = pod("gate", {
  container: `    startupProbe: { exec: { command: [test, -e, /tmp/GATE] }, failureThreshold: 100 }
    readinessProbe: { tcpSocket: { port: 9 }, periodSeconds: 1 }
`,
});

describe("pods, without a mesh", () => {
  let cluster: LocalMesh;
  const servers = ({ pods }: LocalStatus): readonly PodStatus[] => {
    return pods.filter(({ name }) => name.startsWith("web-"));
  };
  const local = (verb: string, ...args: readonly string[]) => {
    return aquifer(["local", verb, "--name", cluster.name, ...args]);
  };

  before(async () => {
    cluster = await LocalMesh.up({
      name: "pods",
      mesh: false,
      manifests: documents(namespace("shop"), server({ replicas: 2 }), pod("client"), FIELDS),
    });
  });
  after(() => cluster?.down());

  it("gives a pod its environment, folder, host name and files", async () => {
    const fields = await cluster.pod("shop/fields");
    const script = 'echo "$ALL $ADDRESS $(pwd) $(hostname) $HOSTNAME"; cat /etc/resolv.conf';
    const { stdout } = await cluster.exec("shop/fields", ["sh", "-c", script]);
    const [first, second] = stdout.split("\n");
    const [ip] = fields.addresses;
    assert.equal(first, `n2/default/$(WHERE)/$(UNKNOWN) ${ip} /usr fields fields`);
    assert.equal(second, "search shop.svc.cluster.local svc.cluster.local cluster.local");
  });

  it("puts exec into the pod's network and cgroup, and passes its exit code and input on", async () => {
    const client = await cluster.pod("shop/client");
    const inside = await local("exec", "-n", "shop", "client", "--", "cat", "/proc/self/cgroup");
    assert.match(inside.stdout, /\/n\d\/pods\/shop\.client\/main$/m);
    const address = await local("exec", "-n", "shop", "client", "--", "ip", "-o", "addr");
    assert.match(address.stdout, new RegExp(`${client.addresses[0]}/32`));
    const failed = await local("exec", "-n", "shop", "client", "--", "sh", "-c", "exit 42");
    assert.equal(failed.code, 42);
    const args = ["local", "exec", "--name", cluster.name, "-n", "shop", "client", "--", "cat"];
    assert.equal((await aquifer(args, { input: "through" })).stdout, "through");
    const missing = await local("exec", "-n", "shop", "nobody", "--", "true");
    assert.equal(missing.code, 1);
    assert.match(missing.stderr, /Cannot find pod "shop\/nobody": there are .*client/);
  });

  it("keeps and follows logs", async () => {
    const whole = await local("logs", "-n", "shop", "deploy/web");
    assert.match(whole.stdout, /^listening in web-/);
    const none = await local("logs", "-n", "shop", "deploy/web", "--tail", "0");
    assert.equal(none.stdout, "");
  });

  it("scales up and down, spread over the nodes", async () => {
    assert.equal((await local("scale", "-n", "shop", "web", "--replicas", "4")).code, 0);
    const up = await cluster.waitFor("4 servers", (status) => {
      return servers(status).filter(({ ready }) => ready).length === 4;
    });
    const nodes = servers(up).map(({ node }) => node);
    assert.deepEqual(nodes.toSorted(), ["n1", "n1", "n2", "n2"]);
    assert.equal((await local("scale", "-n", "shop", "web", "--replicas", "2")).code, 0);
    const down = await cluster.waitFor("2 servers", (status) => servers(status).length === 2);
    assert.deepEqual(
      servers(down)
        .map(({ node }) => node)
        .toSorted(),
      ["n1", "n2"],
    );
  });

  it("starts a container again when it ends, and tells the service", async () => {
    const [before] = servers(await cluster.status());
    const url = `http://${before?.addresses[0]}:8080/crash`;
    await cluster.exec("shop/client", ["curl", "--silent", "--max-time", "2", url]);
    const status = await cluster.waitFor("a restart", ({ pods }) => {
      const again = pods.find(({ uid }) => uid === before?.uid);
      return again?.ready === true && again.containers[0]?.restarts === 1;
    });
    const after = status.pods.find(({ uid }) => uid === before?.uid);
    assert.equal(after?.containers[0]?.exitCode, 3);
    assert.deepEqual(after?.addresses, before?.addresses);
  });

  it("restarts by its policy, and backs off", async () => {
    await cluster.apply(documents(CRASHING, ONE_SHOT));
    const status = await cluster.waitFor("restarts", ({ pods }) => {
      const crashing = pods.find(({ name }) => name === "crashing");
      const oneShot = pods.find(({ name }) => name === "one-shot");
      return (crashing?.containers[0]?.restarts ?? 0) >= 2 && oneShot?.phase === "Succeeded";
    });
    assert.equal(status.pods.find(({ name }) => name === "one-shot")?.containers[0]?.restarts, 0);
    await cluster.waitFor("the back-off", ({ pods }) => {
      return pods.find(({ name }) => name === "crashing")?.containers[0]?.phase === "waiting";
    });
    const { stdout } = await local("delete", "-n", "shop", "pod/crashing", "pod/one-shot");
    assert.match(stdout, /Pod shop\/crashing deleted/);
    await cluster.waitFor("the end", ({ pods }) => !pods.some((p) => p.name === "crashing"));
  });

  it("takes a pod that is not ready out of its service, and restarts one that is not alive", async () => {
    await cluster.apply(server({ replicas: 1 }));
    const before = await cluster.waitFor("one", (status) => servers(status).length === 1);
    const [only] = servers(before);
    const sick = ["curl", "--silent", "--max-time", "2", `http://${only?.addresses[0]}:8080/sick`];
    await cluster.exec("shop/client", sick);
    await cluster.waitFor("no endpoint", ({ services }) => {
      return services.find(({ name }) => name === "web")?.ports[0]?.endpoints.length === 0;
    });
    assert.equal(servers(await cluster.status())[0]?.containers[0]?.restarts, 0);

    await cluster.apply(server({ replicas: 1, container: LIVENESS }));
    await cluster.waitFor("the new template", (status) => {
      const [first, second] = servers(status);
      return first?.ready === true && second === undefined && first.uid !== only?.uid;
    });
    const [next] = servers(await cluster.status());
    const url = `http://${next?.addresses[0]}:8080/sick`;
    await cluster.exec("shop/client", ["curl", "--silent", "--max-time", "2", url]);
    const status = await cluster.waitFor("a restart by the liveness probe", (now) => {
      const [first] = servers(now);
      return first?.containers[0]?.restarts === 1 && first.ready;
    });
    assert.match(servers(status)[0]?.message ?? "", /liveness probe failed/);
  });

  it("waits for the startup probe, and runs exec and tcpSocket probes inside the pod", async () => {
    const gate = `/tmp/aquifer-gate-${process.pid}`;
    await cluster.apply(EXEC_PROBE.replace("/tmp/GATE", gate));
    await cluster.waitFor("it to run", ({ pods }) => {
      return pods.find(({ name }) => name === "gate")?.containers[0]?.phase === "running";
    });
    assert.equal((await cluster.pod("shop/gate")).ready, false);
    const listen = 'require("node:net").createServer().listen(9, "::")';
    const listener = await cluster.spawn("shop/gate", ["node", "-e", listen]);
    await cluster.exec("shop/gate", ["touch", gate]);
    await cluster.waitFor("it to be ready", ({ pods }) => {
      return pods.find(({ name }) => name === "gate")?.ready === true;
    });
    await cluster.exec("shop/gate", ["rm", gate]);
    listener.kill();
    await local("delete", "-n", "shop", "pod/gate");
  });

  it("replaces the pods of a Deployment one by one when its template changes", async () => {
    await cluster.apply(server({ replicas: 2 }));
    await cluster.waitFor("two", (s) => servers(s).filter(({ ready }) => ready).length === 2);
    const before = new Set(servers(await cluster.status()).map(({ uid }) => uid));
    await cluster.apply(server({ replicas: 2, container: "        workingDir: /usr" }));
    let readyMin = 2;
    await eventually("only new pods", async () => {
      const pods = servers(await cluster.status());
      const ready = pods.filter((each) => each.ready).length;
      readyMin = Math.min(readyMin, ready);
      return ready === 2 && pods.length === 2 && pods.every(({ uid }) => !before.has(uid));
    });
    assert.equal(readyMin, 2, "there were always two that are ready");
  });

  it("replaces a pod of a Deployment that is deleted", async () => {
    const [first] = servers(await cluster.status());
    await local("delete", "-n", "shop", `pod/${first?.name}`);
    await cluster.waitFor("another", (status) => {
      const pods = servers(status);
      return pods.length === 2 && pods.every(({ uid, ready }) => ready && uid !== first?.uid);
    });
  });

  it("kills what does not end by itself after its grace period", async () => {
    const stubborn = 'trap "" TERM; while true; do sleep 1; done';
    await cluster.apply(pod("stubborn", { command: ["sh", "-c", stubborn] }));
    await cluster.waitFor("it", ({ pods }) => pods.some((p) => p.name === "stubborn" && p.ready));
    await local("delete", "-n", "shop", "pod/stubborn");
    await cluster.waitFor("its end", ({ pods }) => !pods.some((p) => p.name === "stubborn"));
  });

  it("says what is wrong with a document, and takes the others", async () => {
    const bad = documents(
      pod("good"),
      pod("typo", { container: "    readynessProbe: {}\n" }),
      "kind: [\n",
      pod("lost", { namespace: "nowhere" }),
      pod("homeless", { node: "n9" }),
    );
    const answer = await aquifer(["local", "apply", "--name", cluster.name, "-f", "-"], {
      input: bad,
    });
    const typo = bad.slice(0, bad.indexOf("readyness")).split("\n").length;
    assert.equal(answer.code, 1);
    assert.match(answer.stdout, /Pod shop\/good created/);
    const expected = [
      new RegExp(
        `stdin:${typo}: Pod shop/typo: spec\\.containers\\[0\\]\\.readynessProbe: is not a field`,
      ),
      /stdin:\d+: Cannot read YAML/,
      /Pod nowhere\/lost: metadata\.namespace: there is no Namespace "nowhere"/,
      /Pod shop\/homeless: spec\.nodeName: there is no node "n9", only n1, n2/,
    ];
    for (const pattern of expected) assert.match(answer.stderr, pattern);
    await cluster.waitFor("the good one", ({ pods }) => {
      return pods.some(({ name, ready }) => name === "good" && ready);
    });
  });
});
