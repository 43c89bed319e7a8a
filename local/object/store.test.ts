import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { DeploymentObject } from "./object.ts";
import {
  apply,
  type FileText,
  follow,
  type Objects,
  readFiles,
  remember,
  remove,
} from "./store.ts";

const EMPTY: Objects = new Map();

const namespace = (name: string) =>
  `apiVersion: v1\nkind: Namespace\nmetadata: { name: ${name} }\n`;
const file = (path: string, ...documents: readonly string[]): FileText => {
  return { path, text: documents.join("---\n") };
};
const deployment = (replicas: number | string) => `apiVersion: apps/v1
kind: Deployment
metadata: { name: web }
spec:
  replicas: ${replicas}
  selector: {}
  template: { spec: { containers: [{ name: a, command: [b] }] } }
`;

function replicas(objects: Objects): number | undefined {
  const object = objects.get("Deployment default/web")?.object;
  return (object as DeploymentObject | undefined)?.replicas;
}

/** Reads one state of the files after another. */
function history(...states: readonly (readonly FileText[])[]) {
  let objects = EMPTY;
  let reading: ReturnType<typeof readFiles> | undefined;
  let last: ReturnType<typeof follow> | undefined;
  for (const files of states) {
    const next = readFiles(files);
    last = follow(objects, reading, next);
    reading = remember(reading, next);
    objects = last.objects;
  }
  assert.ok(last);
  return { ...last, names: [...objects.keys()] };
}

describe("apply()", () => {
  it("says what became of each object", () => {
    const first = apply(EMPTY, readFiles([file("a", namespace("x"), deployment(1))]));
    assert.deepEqual(
      first.changes.map(({ action }) => action),
      ["created", "created"],
    );
    const second = apply(first.objects, readFiles([file("a", namespace("x"), deployment(2))]));
    assert.deepEqual(
      second.changes.map(({ action }) => action),
      ["unchanged", "configured"],
    );
  });

  it("keeps the version before one that is wrong", () => {
    const first = apply(EMPTY, readFiles([file("a", deployment(1))]));
    const second = apply(first.objects, readFiles([file("a", deployment("many"))]));
    assert.equal(replicas(second.objects), 1);
    assert.deepEqual(
      second.problems.map(({ lastGood }) => lastGood),
      [true],
    );
  });

  it("takes the first of two that are the same object", () => {
    const { objects, problems } = apply(
      EMPTY,
      readFiles([file("a", deployment(1)), file("b", deployment(2))]),
    );
    assert.equal(replicas(objects), 1);
    assert.match(problems[0]?.reason ?? "", /is already in a:1/);
  });
});

describe("follow()", () => {
  it("removes what has vanished", () => {
    const { names, changes } = history(
      [file("a", namespace("x")), file("b", namespace("y"))],
      [file("a", namespace("x"))],
    );
    assert.deepEqual(names, ["Namespace x"]);
    assert.deepEqual(changes, [{ object: "Namespace y", action: "deleted" }]);
  });

  it("keeps all of a file in which something cannot be told", () => {
    const { names } = history(
      [file("a", namespace("x"), namespace("y"))],
      [file("a", namespace("x"), "kind: [\n")],
    );
    assert.deepEqual(names, ["Namespace x", "Namespace y"]);
  });

  it("removes it after all once the file is mended without it", () => {
    const { names } = history(
      [file("a", namespace("x"), namespace("y"))],
      [file("a", namespace("x"), "kind: [\n")],
      [file("a", namespace("x"))],
    );
    assert.deepEqual(names, ["Namespace x"]);
  });

  it("keeps an object whose new version is wrong", () => {
    const { objects, problems } = history(
      [file("a", deployment(1))],
      [file("a", deployment("many"))],
      [file("a", deployment("more"))],
    );
    assert.equal(replicas(objects), 1);
    assert.deepEqual(
      problems.map(({ lastGood }) => lastGood),
      [true],
    );
  });

  it("leaves what was changed otherwise alone until its file changes", () => {
    const files = [file("a", deployment(1)), file("b", namespace("x"))];
    const first = readFiles(files);
    const { objects } = follow(EMPTY, undefined, first);
    const scaled = apply(objects, readFiles([file("elsewhere", deployment(5))])).objects;
    const second = readFiles([...files, file("c", namespace("y"))]);
    const followed = follow(scaled, first, second);
    assert.equal(replicas(followed.objects), 5);
    const third = readFiles([file("a", deployment(2))]);
    assert.equal(replicas(follow(followed.objects, second, third).objects), 2);
  });

  it("finds an object's line again after lines were put in front of it", () => {
    const { objects, changes } = history(
      [file("a", namespace("x"))],
      [{ path: "a", text: `# more\n\n${namespace("x")}` }],
    );
    assert.deepEqual(changes, []);
    assert.equal(objects.get("Namespace x")?.document.line, 3);
  });
});

describe("remove()", () => {
  it("takes everything in a namespace along", () => {
    const inside = deployment(1).replace("name: web", "name: web, namespace: x");
    const { objects } = apply(EMPTY, readFiles([file("a", namespace("x"), inside, deployment(1))]));
    const { objects: left } = remove(objects, ["Namespace x"]);
    assert.deepEqual([...left.keys()], ["Deployment default/web"]);
  });
});
