import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, describe, it } from "node:test";
import type { LocalStatus } from "#core/local-api.ts";
import { eventually, finish, LocalMesh } from "../support/local-mesh.ts";
import { aquifer, CLI } from "./command.ts";
import { hostLinks, NO_TRACES, tracesOf } from "./host.ts";
import { documents, namespace, pod, server } from "./manifests.ts";

const MANIFESTS = documents(namespace("shop"), server(), pod("client"));

describe("the life of a runtime", () => {
  const running: LocalMesh[] = [];
  const up = async (name: string) => {
    const cluster = await LocalMesh.up({ name, mesh: false, manifests: MANIFESTS });
    running.push(cluster);
    return cluster;
  };
  after(async () => {
    for (const cluster of running) await cluster.down();
  });

  it("leaves nothing behind after Ctrl-C", async () => {
    const links = hostLinks();
    const cluster = await up("ctrl-c");
    const traces = tracesOf(cluster.name);
    assert.equal(traces.netns.length, 6);
    assert.equal(hostLinks(), links, "the host's own network is not touched");
    await cluster.down();
    assert.deepEqual(tracesOf(cluster.name), NO_TRACES);
    assert.equal(hostLinks(), links);
  });

  it("leaves nothing behind when it is asked to go down", async () => {
    const cluster = await up("asked");
    const { code } = await aquifer(["local", "down", "--name", cluster.name]);
    assert.equal(code, 0);
    await eventually("the last file to go", () => {
      return JSON.stringify(tracesOf(cluster.name)) === JSON.stringify(NO_TRACES);
    });
  });

  it("cleans up after a kill -9, at the next start", async () => {
    const first = await up("killed");
    const { pods } = await first.status();
    const { pid } = await first.status();
    process.kill(pid, "SIGKILL");
    await eventually("the runtime to be gone", () =>
      first.status().then(
        () => false,
        () => true,
      ),
    );
    assert.notDeepEqual(tracesOf(first.name).processes, [], "its pods are still there");
    const second = await LocalMesh.up({ name: "killed", mesh: false, manifests: MANIFESTS });
    running.push(second);
    assert.match(second.output(), /left behind/);
    const now = new Set((await second.status()).pods.map(({ uid }) => uid));
    assert.ok(pods.every(({ uid }) => !now.has(uid)));
    await second.down();
    assert.deepEqual(tracesOf(second.name), NO_TRACES);
  });

  it("cleans up after a kill -9 without a new start, with down", async () => {
    const cluster = await up("removed");
    process.kill((await cluster.status()).pid, "SIGKILL");
    await eventually("the runtime to be gone", () => {
      return cluster.status().then(
        () => false,
        () => true,
      );
    });
    const { code, stdout } = await aquifer(["local", "down", "--name", cluster.name]);
    assert.deepEqual([code, stdout.includes("is removed")], [0, true]);
    assert.deepEqual(tracesOf(cluster.name), NO_TRACES);
  });

  it("runs two at once, and they do not see each other", async () => {
    const [one, two] = [await up("one"), await up("two")];
    const names = async (cluster: LocalMesh) => {
      const curl = ["curl", "--silent", "--max-time", "5", "http://web/"];
      const answer = await cluster.exec("shop/client", curl);
      return { answer: answer.stdout.split(" ")[0], pods: (await cluster.status()).pods };
    };
    const [first, second] = [await names(one), await names(two)];
    assert.ok(first.pods.some(({ name }) => name === first.answer));
    assert.ok(second.pods.some(({ name }) => name === second.answer));
    const { stdout } = await aquifer(["local", "list"]);
    assert.match(stdout, new RegExp(`${one.name} +no mesh +2 +3`));
    await one.down();
    assert.deepEqual(tracesOf(one.name), NO_TRACES);
    assert.ok((await names(two)).answer, "the other goes on");
    await two.down();
  });

  it("refuses a second one of the same name", async () => {
    const cluster = await up("same");
    const second = await aquifer(["local", "up", "--no-mesh", "--name", cluster.name]);
    assert.equal(second.code, 1);
    assert.match(second.stderr, /Cannot start "same-\d+": it is running/);
    assert.equal((await cluster.status()).pods.length, 3);
    await cluster.down();
  });

  it("stops at once while it is still starting", async () => {
    const name = `hasty-${process.pid}`;
    const child = spawn(CLI, ["local", "up", "--no-mesh", "--name", name], { stdio: "pipe" });
    await once(child.stdout, "data");
    child.kill("SIGINT");
    await finish(child, 20_000);
    assert.deepEqual(tracesOf(name), NO_TRACES);
  });

  it("says how it was called wrongly, with exit code 2", async () => {
    const calls = [
      {
        args: ["local", "up", "--nodes", "0"],
        says: /AQUIFER_LOCAL_NODES="0": expected an integer/,
      },
      { args: ["local", "up", "--name", "Not_A_Name"], says: /lower case letters/ },
      { args: ["local", "up", "--nope"], says: /unknown option '--nope'/ },
      { args: ["nonsense"], says: /unknown command 'nonsense'/ },
      { args: ["local", "scale", "web"], says: /required option '--replicas/ },
      { args: ["local", "delete", "web"], says: /expected KIND\/NAME, not "web"/ },
    ];
    for (const { args, says } of calls) {
      const { code, stderr } = await aquifer(args);
      assert.equal(code, 2, `${args.join(" ")}: ${stderr}`);
      assert.match(stderr, says);
    }
    const { code, stderr } = await aquifer(["local", "status", "--name", "no-such-one"]);
    assert.equal(code, 1);
    assert.match(stderr, /Cannot ask runtime "no-such-one": it is not running/);
    assert.equal((await aquifer(["local", "--help"])).code, 0);
  });
});

describe("a watched folder", () => {
  it("is followed: edits, mistakes and removals", async () => {
    const folder = mkdtempSync(join(tmpdir(), "aquifer-watched-"));
    const name = `watched-${process.pid}`;
    const write = (file: string, text: string) => writeFileSync(join(folder, file), text);
    write("namespace.yaml", namespace("shop"));
    write("web.yaml", server({ replicas: 1 }));
    write("client.yaml", pod("client"));
    const args = ["local", "up", "--no-mesh", "--detach", "--name", name, "-f", folder];
    const detached = await aquifer(args);
    try {
      assert.equal(detached.code, 0, detached.stderr);
      const status = async () => {
        const { stdout } = await aquifer(["local", "status", "--name", name, "-o", "json"]);
        return JSON.parse(stdout) as LocalStatus;
      };
      const count = async (prefix: string) => {
        const { pods } = await status();
        return pods.filter((each) => each.name.startsWith(prefix) && each.ready).length;
      };
      assert.equal(await count("web-"), 1);

      write("web.yaml", server({ replicas: 2 }));
      await eventually("two servers", async () => (await count("web-")) === 2);

      write("web.yaml", server({ replicas: 3 }).replace("replicas: 3", "replicas: many"));
      await eventually("the problem", async () => {
        const { problems } = await status();
        return problems.some(({ field, lastGood }) => field === "spec.replicas" && lastGood);
      });
      assert.equal(await count("web-"), 2, "the version before stays");

      write("web.yaml", server({ replicas: 3 }));
      await eventually("three servers, and no problem", async () => {
        return (await count("web-")) === 3 && (await status()).problems.length === 0;
      });

      rmSync(join(folder, "client.yaml"));
      await eventually("the client to go", async () => (await count("client")) === 0);
    } finally {
      await aquifer(["local", "down", "--name", name]);
      rmSync(folder, { recursive: true, force: true });
    }
    assert.deepEqual(tracesOf(name), NO_TRACES);
  });
});
