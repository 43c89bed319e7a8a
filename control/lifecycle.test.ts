import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { text as readText } from "node:stream/consumers";
import { afterEach, beforeEach, describe, it } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { formatSocketAddress } from "#core/ip.ts";
import type { ProblemJson } from "./admin/server.ts";
import { readConfig } from "./config.ts";
import { Control } from "./lifecycle.ts";
import { openLog } from "./log.ts";

/** A process takes a second to start, and many times that on a machine that is busy. */
const WAIT_MS = 20_000;

const POLICY = `apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: web, namespace: shop}
spec:
  rules:
    - from: [{source: {namespaces: ["a"]}}]
`;
const BROKEN = POLICY.replace("namespaces", "namespace");

let root: string;

beforeEach(async () => {
  root = await mkdtemp(path.join(os.tmpdir(), `aquifer-control-${process.pid}-`));
});

afterEach(async () => {
  await rm(root, { recursive: true, force: true });
});

async function until(what: () => Promise<boolean> | boolean): Promise<void> {
  const deadlineMs = performance.now() + WAIT_MS;
  while (!(await what())) {
    assert.ok(performance.now() < deadlineMs, "waited in vain");
    await delay(5);
  }
}

function environment(): Readonly<Record<string, string>> {
  return {
    AQUIFER_SOURCE_DIRECTORIES: path.join(root, "objects"),
    AQUIFER_STATE_DIR: path.join(root, "state"),
    AQUIFER_DISCOVERY_ADDRESS: "127.0.0.1:0",
    AQUIFER_ADMIN_ADDRESS: "127.0.0.1:0",
  };
}

describe("Control", () => {
  let control: Control;
  let isRunning = false;
  let lines: string[];
  let started: Promise<void>;

  const object = (name: string, content: string) =>
    writeFile(path.join(root, "objects", name), content);
  const ask = async (what: string) => {
    const address = control.adminAddress;
    assert.ok(address);
    return await fetch(`http://${formatSocketAddress(address)}${what}`);
  };
  const metrics = async (): Promise<string> => await (await ask("/metrics")).text();
  const problems = async () => (await (await ask("/problems")).json()) as readonly ProblemJson[];
  const startControl = () => {
    lines = [];
    const config = readConfig(environment());
    const log = openLog(config.log, { write: (line) => void lines.push(line) });
    const clock = { nowMs: () => Date.UTC(2026, 10, 21) };
    control = new Control({ config, version: "1.2.3", log, clock });
    started = control.start();
    isRunning = true;
  };
  const stopControl = async () => {
    if (isRunning) await control.stop();
    isRunning = false;
  };

  afterEach(stopControl);

  it("is not ready before it knows the objects, and has no door for nodes", async () => {
    startControl();
    await until(() => control.adminAddress !== undefined);
    const early = await ask("/healthz/ready");
    assert.equal(early.status, 503);
    assert.equal(await early.text(), "not ready: objects, discovery\n");
    assert.equal(control.discoveryAddress, undefined);
    await mkdir(path.join(root, "objects"));
    await started;
    assert.equal((await ask("/healthz/ready")).status, 200);
    assert.notEqual(control.discoveryAddress, undefined);
  });

  it("can be stopped while it waits for its folder", async () => {
    startControl();
    await until(() => control.adminAddress !== undefined);
    const ended = assert.rejects(started, /control is stopping/);
    await stopControl();
    await ended;
  });

  it("tells each problem once, with its place, and when it is mended", async () => {
    await mkdir(path.join(root, "objects"));
    await object("policy.yaml", POLICY);
    startControl();
    await started;
    assert.deepEqual(await problems(), []);
    await object("policy.yaml", BROKEN);
    await until(async () => (await problems()).length === 1);
    const file = path.join(root, "objects", "policy.yaml");
    const reason = 'unknown field, is "namespaces" meant; the last good version stays in force';
    const field = "spec.rules[0].from[0].source.namespace";
    assert.deepEqual(await problems(), [
      {
        file,
        line: 6,
        object: "AuthorizationPolicy shop/web",
        field,
        reason,
        effect: "lastGood",
        since: "2026-11-21T00:00:00.000Z",
        lastGood: true,
      },
    ]);
    await object("other.yaml", POLICY.replace("name: web", "name: other"));
    await until(async () => (await metrics()).includes('kind="AuthorizationPolicy"} 2'));
    assert.match(await metrics(), /problems\{effect="lastGood"\} 1/);
    await object("policy.yaml", POLICY);
    await until(async () => (await problems()).length === 0);
    const told = `${file}:6: AuthorizationPolicy shop/web: ${field}: ${reason}`;
    const about = lines.filter((line) => line.includes("shop/web"));
    assert.equal(about.length, 2);
    assert.ok(about[0]?.includes(`\twarn\t${told}\t`), about.join());
    assert.ok(about[1]?.includes(`\tinfo\tmended: ${told}`), about.join());
  });

  it("tells of what was just written where it is asked for what is fresh", async () => {
    await mkdir(path.join(root, "objects"));
    startControl();
    await started;
    for (const content of [BROKEN, POLICY, BROKEN]) {
      await object("policy.yaml", content);
      const answer = await ask("/problems?fresh=true");
      const count = ((await answer.json()) as readonly ProblemJson[]).length;
      assert.equal(count, content === BROKEN ? 1 : 0);
    }
    assert.deepEqual(await (await ask("/nodes")).json(), []);
  });

  it("goes on after a restart with what was good before a mistake", async () => {
    await mkdir(path.join(root, "objects"));
    await object("policy.yaml", POLICY);
    startControl();
    await started;
    await stopControl();
    for (const content of [BROKEN, `${POLICY}  x: [`]) {
      await object("policy.yaml", content);
      startControl();
      await started;
      const [problem, ...others] = await problems();
      assert.deepEqual([problem?.effect, others], ["lastGood", []]);
      await stopControl();
    }
  });

  it("has metrics with the version and the process", async () => {
    await mkdir(path.join(root, "objects"));
    startControl();
    await started;
    const response = await ask("/metrics");
    assert.match(response.headers.get("content-type") ?? "", /^text\/plain; version=0.0.4/);
    const text = await metrics();
    assert.match(text, /^istio_build\{component="pilot",tag="1.2.3"\} 1$/m);
    assert.match(text, /^process_resident_memory_bytes /m);
    assert.match(text, /^aquifer_control_connected_nodes 0$/m);
  });
});

describe("aquifer control", () => {
  const run = async (args: readonly string[], env: Readonly<Record<string, string>>) => {
    const main = path.join(import.meta.dirname, "main.ts");
    const child = spawn(process.execPath, [main, ...args], { env });
    const closed = new Promise<number | null>((resolve) => child.once("close", resolve));
    const [status, out, err] = await Promise.all([
      closed,
      readText(child.stdout),
      readText(child.stderr),
    ]);
    return { status, out, err };
  };

  it("lists wrong settings and ends with status 2", async () => {
    const { status, err } = await run([], { TRUST_DOMAIN: "X" });
    assert.equal(status, 2);
    assert.equal(err.split("\n").length, 5);
    assert.match(err, /^Cannot read settings:\n {2}AQUIFER_SOURCE_DIRECTORIES is not set\n/);
  });

  it("does not know other commands", async () => {
    const { status, err } = await run(["tokens"], {});
    assert.equal(status, 2);
    assert.match(err, /^Cannot run "tokens": no such command\nusage: /);
  });

  it("prints a node token", async () => {
    const { status, out } = await run(["token", "--node", "n1"], environment());
    assert.equal(status, 0);
    assert.match(out, /^[\w-]+\.[\w-]+\.[\w-]+\n$/);
  });

  it("serves until it is told to stop, and then ends with status 0", async () => {
    await mkdir(path.join(root, "objects"));
    const main = path.join(import.meta.dirname, "main.ts");
    const child = spawn(process.execPath, [main], { env: environment() });
    const closed = new Promise<number | null>((resolve) => child.once("close", resolve));
    let out = "";
    child.stdout.on("data", (chunk) => {
      out += chunk;
    });
    try {
      await until(() => out.includes("control is ready"));
      child.kill("SIGTERM");
      assert.equal(await closed, 0);
    } finally {
      child.kill("SIGKILL");
    }
    const root509 = await readFile(path.join(root, "state", "root-cert.pem"), "utf8");
    assert.match(root509, /^-----BEGIN CERTIFICATE-----/);
  });
});
