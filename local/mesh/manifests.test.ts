import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { readDocuments } from "../object/document.ts";
import { readFiles } from "../object/store.ts";
import { type ObjectFile, objectFiles, translate } from "./manifests.ts";
import { pauseMs } from "./supervise.ts";
import { wantsMesh } from "./wants-mesh.ts";

const YAML = `# two objects
a: 1
---
kind: Deployment
spec:
  template:
    spec:
      serviceAccountName: cart
`;
const documents = readDocuments("/my/shop.yaml", YAML).documents;

function file(source: ObjectFile["source"]) {
  return new Map<string, ObjectFile>([["shop.Pod.cart.yaml", { text: "", source }]]);
}

const PROBLEM = {
  file: "/run/objects/shop.Pod.cart.yaml",
  line: 3,
  object: "Pod shop/cart",
  field: "spec.serviceAccountName",
  reason: "is wrong",
  lastGood: true,
};

function filesOf(yaml: string): readonly string[] {
  const { objects } = readFiles([{ path: "/my/shop.yaml", text: yaml }]);
  const nothing = { namespaces: [], services: [], pods: [], slices: [] };
  return [...objectFiles({ objects, ...nothing }).keys()];
}

function policy(name: string): string {
  const metadata = `{name: "${name}", namespace: shop}`;
  return `apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: ${metadata}\n`;
}

describe("objectFiles()", () => {
  it("names files so that control reads them, also those of no namespace", () => {
    const namespace = "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n";
    const names = filesOf(`${namespace}---\n${policy("web")}`);
    assert.deepEqual(names, ["Namespace.shop.yaml", "shop.AuthorizationPolicy.web.yaml"]);
  });

  it("keeps long names apart, and short enough for a file", () => {
    const long = "a".repeat(250);
    const names = filesOf(`${policy(`${long}b`)}---\n${policy(`${long}c`)}`);
    assert.equal(new Set(names).size, 2);
    assert.ok(names.every((name) => name.length < 240));
  });
});

describe("translate()", () => {
  it("finds the user's line of an object that was passed on as it stands", () => {
    const [, document] = documents;
    assert.ok(document);
    const object = "Pod shop/cart";
    const { file: path, line } = translate(PROBLEM, file({ kind: "verbatim", document, object }));
    assert.deepEqual([path, line], ["/my/shop.yaml", 6]);
  });

  it("finds the user's field behind an object that was made", () => {
    const [, document] = documents;
    assert.ok(document);
    const prefix = ["spec", "template"];
    const object = "Deployment shop/cart";
    const found = translate(PROBLEM, file({ kind: "made", document, object, prefix }));
    assert.equal(found.object, object);
    assert.equal(found.field, "spec.template.spec.serviceAccountName");
    assert.equal(found.line, 8);
    assert.equal(found.lastGood, true);
  });

  it("leaves a problem of something that the user did not write as it is", () => {
    assert.equal(translate(PROBLEM, new Map()).file, PROBLEM.file);
  });
});

describe("wantsMesh()", () => {
  const ambient = { "istio.io/dataplane-mode": "ambient" };
  const none = { "istio.io/dataplane-mode": "none" };

  it("goes by the namespace, unless the pod says otherwise", () => {
    assert.equal(wantsMesh({}, {}), false);
    assert.equal(wantsMesh(ambient, {}), true);
    assert.equal(wantsMesh(ambient, none), false);
    assert.equal(wantsMesh({}, ambient), true);
  });
});

describe("pauseMs()", () => {
  it("is nothing after the first end, and has a limit", () => {
    assert.deepEqual([1, 2, 3, 50].map(pauseMs), [0, 50, 100, 5_000]);
  });
});
