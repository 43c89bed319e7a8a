import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { after, before, describe, it } from "node:test";
import type { LocalStatus } from "#core/local-api.ts";
import { eventually, finish, LocalMesh } from "../support/local-mesh.ts";
import { aquifer, CLI } from "./command.ts";
import { NO_TRACES, tracesOf } from "./host.ts";
import { documents, namespace, pod, server } from "./manifests.ts";

const AMBIENT = "{ istio.io/dataplane-mode: ambient }";

describe("enrolment of pods", () => {
  let cluster: LocalMesh;
  const meshOf = ({ pods }: LocalStatus, prefix: string) => {
    return pods.filter(({ name }) => name.startsWith(prefix)).map(({ mesh }) => mesh);
  };
  const all = (states: readonly string[], state: string) => {
    return states.length > 0 && states.every((each) => each === state);
  };

  before(async () => {
    cluster = await LocalMesh.up({
      name: "enrol",
      manifests: documents(namespace("shop", AMBIENT), server(), pod("client")),
    });
  });
  after(() => cluster?.down());

  it("follows the label of a namespace live, without restarting anything", async () => {
    const before = await cluster.status();
    assert.ok(all(meshOf(before, "web-"), "enrolled"));
    const pids = ({ pods }: LocalStatus) => pods.map(({ containers }) => containers[0]?.pid);

    await cluster.apply(namespace("shop"));
    await cluster.waitFor("all to be outside", (status) => all(meshOf(status, ""), "outside"));
    const plain = await cluster.exec("shop/client", ["curl", "-s", "-m", "5", "http://web/"]);
    assert.equal(plain.code, 0);

    await cluster.apply(namespace("shop", AMBIENT));
    const again = await cluster.waitFor("all to be enrolled", (s) =>
      all(meshOf(s, ""), "enrolled"),
    );
    assert.deepEqual(pids(again), pids(before));
    const meshed = await cluster.exec("shop/client", ["curl", "-s", "-m", "5", "http://web/"]);
    assert.equal(meshed.code, 0);
  });

  it("starts an agent that is killed again, and enrols its pods anew", async () => {
    const [node] = (await cluster.status()).nodes;
    process.kill(node?.agent?.pid ?? 0, "SIGKILL");
    await cluster.waitFor("another agent", (status) => {
      const agent = status.nodes[0]?.agent;
      return agent?.up === true && agent.restarts === 1 && all(meshOf(status, ""), "enrolled");
    });
    await eventually("traffic", async () => {
      return (
        (await cluster.exec("shop/client", ["curl", "-s", "-m", "5", "http://web/"])).code === 0
      );
    });
  });

  it("starts a control server that is killed again", async () => {
    const { control } = await cluster.status();
    process.kill(control?.pid ?? 0, "SIGKILL");
    await cluster.waitFor("another control server", (status) => {
      return status.control?.ready === true && status.control.restarts === 1;
    });
  });

  it("names the user's own line of what control finds wrong", async () => {
    const policy = `apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: { name: strict, namespace: shop }
spec:
  mtls:
    mode: STRICKT
`;
    await cluster.apply(documents(namespace("street"), policy));
    const { problems } = await cluster.waitFor("the problem", (s) => s.problems.length > 0);
    const [{ file, line, field, object } = { file: "", line: 0, field: "", object: "" }] = problems;
    assert.match(file, /test\.yaml$/);
    assert.deepEqual(
      [line, object, field],
      [10, "PeerAuthentication shop/strict", "spec.mtls.mode"],
    );
    await cluster.delete(policy);
    await cluster.waitFor("no problem", (status) => status.problems.length === 0);
  });

  it("leaves no pins behind, nor anything else", async () => {
    assert.equal(tracesOf(cluster.name).pins.length, 2);
    await cluster.down();
    assert.deepEqual(tracesOf(cluster.name), NO_TRACES);
  });
});

describe("a node without an agent", () => {
  const name = `agentless-${process.pid}`;
  let runtime: ChildProcess | undefined;
  after(async () => {
    runtime?.kill("SIGINT");
    if (runtime) await finish(runtime, 30_000);
    assert.deepEqual(tracesOf(name), NO_TRACES);
  });

  it("does not start a pod of the mesh, and starts the others", async () => {
    const args = ["local", "up", "--name", name, "--agent-env", "LOG_FORMAT=nonsense"];
    runtime = spawn(CLI, args, { stdio: "ignore" });
    const call = (verb: string, ...rest: readonly string[]) => {
      return (input: string) => aquifer(["local", verb, "--name", name, ...rest], { input });
    };
    const status = async (): Promise<LocalStatus | undefined> => {
      const { code, stdout } = await call("status", "-o", "json")("");
      return code === 0 ? (JSON.parse(stdout) as LocalStatus) : undefined;
    };
    await eventually("the API", async () => (await status()) !== undefined);
    const manifests = [namespace("shop", AMBIENT), namespace("street"), pod("meshed")];
    await call("apply", "-f", "-")(documents(...manifests, pod("free", { namespace: "street" })));
    await eventually("the free one", async () => {
      return (await status())?.pods.some((each) => each.name === "free" && each.ready) ?? false;
    });
    const meshed = (await status())?.pods.find((each) => each.name === "meshed");
    assert.deepEqual([meshed?.phase, meshed?.mesh], ["Pending", "enrolling"]);
    assert.match(meshed?.message ?? "", /Cannot ask the agent/);
    assert.equal(meshed?.containers[0]?.pid, null);
  });
});
