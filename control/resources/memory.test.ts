import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { afterEach, beforeEach, describe, it } from "node:test";
import { formatId } from "../source/source.ts";
import { rawObjectForTest, rawObjectsForTest } from "./fixtures.ts";
import { ObjectMemory } from "./memory.ts";
import { ObjectRegister } from "./register.ts";

const SETTINGS = { rootNamespace: "istio-system" };

const policyText = (port: string) => `
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: web, namespace: shop}
spec: {rules: [{to: [{operation: {ports: ["${port}"]}}]}]}
`;

describe("ObjectMemory", () => {
  let folder: string;
  let troubles: string[];
  const open = () => new ObjectMemory(folder, (reason) => troubles.push(reason));

  beforeEach(async () => {
    folder = await mkdtemp(path.join(os.tmpdir(), `aquifer-memory-${process.pid}-`));
    troubles = [];
  });

  afterEach(async () => {
    assert.deepEqual(troubles, []);
    await rm(folder, { recursive: true, force: true });
  });

  it("remembers objects with their places, and forgets those that are gone", () => {
    const objects = rawObjectsForTest(
      "{apiVersion: v1, kind: Namespace, metadata: {name: a}}\n---\n" +
        "{apiVersion: v1, kind: Pod, metadata: {name: b, namespace: a}}",
      "/objects/x.yaml",
    );
    const first = open();
    first.update({ good: objects, gone: [] });
    first.close();
    const second = open();
    assert.deepEqual(
      second.all().map(({ id, origin, value }) => [formatId(id), origin, value]),
      objects.map(({ id, origin, value }) => [formatId(id), origin, value]),
    );
    const [namespace, pod] = objects;
    assert.ok(namespace && pod);
    second.update({ good: [], gone: [namespace.id] });
    assert.equal(second.get(namespace.id), undefined);
    assert.equal(second.get(pod.id)?.lineOf(["spec"]), 3);
    second.close();
  });

  it("lets a register go on with what was good before a restart", () => {
    const apply = (text: string) => {
      const memory = open();
      const register = new ObjectRegister(SETTINGS, memory);
      register.apply({ upserted: [rawObjectForTest(text)], deleted: [], problems: [] });
      memory.close();
      const policy = register.objects.AuthorizationPolicy.get("shop/web")?.object.policy;
      return { ports: policy?.rules[0]?.[0]?.[0]?.destinationPorts, problems: register.problems };
    };
    assert.deepEqual(apply(policyText("80")), { ports: [80], problems: [] });
    for (let restarts = 0; restarts < 2; restarts++) {
      const { ports, problems } = apply(policyText("none"));
      assert.deepEqual(ports, [80]);
      assert.equal(problems[0]?.effect, "lastGood");
    }
    assert.deepEqual(apply(policyText("81")).ports, [81]);
  });

  it("starts anew where its file is damaged, and says so", async () => {
    await writeFile(path.join(folder, "objects.sqlite"), "x".repeat(5_000));
    const memory = open();
    assert.match(
      troubles.splice(0).join(),
      /^Cannot use ".*objects.sqlite", starting anew: .* not a/,
    );
    memory.update({ good: rawObjectsForTest(policyText("80")), gone: [] });
    assert.equal(memory.all().length, 1);
    memory.close();
  });

  it("does without where there is no place for it, and says so", async () => {
    const memory = new ObjectMemory(path.join(folder, "missing"), (text) => troubles.push(text));
    memory.update({ good: rawObjectsForTest(policyText("80")), gone: [] });
    assert.deepEqual(memory.all(), []);
    assert.equal(troubles.splice(0).length, 2);
    memory.close();
  });
});
