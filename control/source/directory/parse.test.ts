import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { formatId } from "../source.ts";
import { parseFile } from "./parse.ts";

const idsOf = (text: string) => parseFile("f.yaml", text).objects.map(({ id }) => formatId(id));
const faultsOf = (text: string) =>
  parseFile("f.yaml", text).faults.map(({ line, field, reason }) =>
    [line, field, reason].filter((part) => part !== undefined).join(": "),
  );

const POLICY = `# what may call the web
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata:
  name: web
  namespace: shop
spec:
  rules:
    - from:
        - source:
            namespaces: ["a"]
    - to:
        - operation: {ports: ["80"]}
`;

describe("parseFile()", () => {
  it("finds every document, and none in what is only comments", () => {
    const text = `${POLICY}---\n# nothing here\n---\nkind: Pod\napiVersion: v1\nmetadata: {name: a}\n`;
    assert.deepEqual(idsOf(text), ["AuthorizationPolicy shop/web", "Pod default/a"]);
    assert.deepEqual(idsOf(""), []);
    assert.deepEqual(faultsOf("---\n---\n"), []);
  });

  it("knows the line of every field, and of what is around one that is not there", () => {
    const [object] = parseFile("f.yaml", `---\n# first\n---\n${POLICY}`).objects;
    assert.deepEqual(object?.origin, { file: "f.yaml", line: 5 });
    assert.equal(object?.lineOf(["spec", "rules", 0, "from"]), 12);
    assert.equal(object?.lineOf(["spec", "rules", 1, "to", 0, "operation", "ports", 0]), 16);
    assert.equal(object?.lineOf(["spec", "rules", 1, "when", 0]), 15);
    assert.equal(object?.lineOf(["metadata", "labels", "a"]), 7);
  });

  it("follows anchors and merge keys", () => {
    const text = `apiVersion: v1
kind: Pod
metadata: {name: a}
base: &base {x: 1}
spec:
  <<: *base
  y: 2
status: *base
`;
    const [object] = parseFile("f.yaml", text).objects;
    assert.ok(object);
    assert.deepEqual(new Map(Object.entries(object.value ?? {})).get("spec"), { x: 1, y: 2 });
    assert.equal(object.lineOf(["status", "x"]), 4);
  });

  it("reads JSON, indented by tabs as well", () => {
    const text = '{\n\t"apiVersion": "v1",\n\t"kind": "Namespace",\n\t"metadata": {"name": "a"}\n}';
    assert.deepEqual(idsOf(text), ["Namespace a"]);
  });

  it("takes lists apart, and what their items leave out from the list", () => {
    const text = `apiVersion: v1
kind: List
items:
  - {apiVersion: v1, kind: Pod, metadata: {name: a}}
  - apiVersion: v1
    kind: ServiceList
    items:
      - metadata: {name: b}
        spec: {type: ClusterIP}
`;
    assert.deepEqual(idsOf(text), ["Pod default/a", "Service default/b"]);
    const [, service] = parseFile("f.yaml", text).objects;
    assert.equal(service?.apiVersion, "v1");
    assert.equal(service?.origin.line, 8);
    assert.equal(service?.lineOf(["spec", "type"]), 9);
  });

  it("leaves out what is not for the mesh, without a word", () => {
    const text = "{apiVersion: apps/v1, kind: Deployment}\n---\n{apiVersion: v1, kind: Secret}\n";
    assert.deepEqual(parseFile("f.yaml", text), { objects: [], faults: [] });
  });

  const FAULTS: readonly (readonly [string, string])[] = [
    ['a: "unterminated\nb: 2\n', '3: not valid YAML: Missing closing "quote'],
    ["a: 1\na: 2\n", "2: not valid YAML: Map keys must be unique"],
    [
      "a: &x [*y]\n",
      "1: not valid YAML: Unresolved alias (the anchor must be set before the alias): y",
    ],
    ["a: !secret b\n", "1: not valid YAML: Unresolved tag: !secret"],
    ["a: !!binary aGk=\n", "1: a value has a type that JSON does not have"],
    ["- a\n- b\n", "1: expected an object, got a list"],
    ["just text\n", '1: expected an object, got "just text"'],
    [
      "kind: Pod\nmetadata: {name: a}\n",
      '1: apiVersion: is missing, expected a string such as "v1"',
    ],
    ["apiVersion: 1\nkind: Pod\n", '1: apiVersion: expected a string such as "v1", got number 1'],
    ["apiVersion: v1\n", '1: kind: is missing, expected a string such as "Service"'],
    ["apiVersion: v1\nkind: Pod\n", "1: metadata: is missing, expected a map with a name"],
    [
      "apiVersion: v1\nkind: Pod\nmetadata:\n  generateName: a-\n",
      '3: metadata.name: is missing, expected lower case letters, digits, "-" and "."',
    ],
    [
      "apiVersion: v1\nkind: Pod\nmetadata:\n  name: A_b\n",
      '4: metadata.name: expected lower case letters, digits, "-" and ".", got "A_b"',
    ],
    [
      "apiVersion: v1\nkind: Pod\nmetadata:\n  name: a\n  namespace: a.b\n",
      '5: metadata.namespace: expected lower case letters, digits and "-", got "a.b"',
    ],
    [
      "apiVersion: v1\nkind: List\nitems:\n  - {apiVersion: v1, kind: Pod}\n  - 7\n",
      "4: items[0].metadata: is missing, expected a map with a name",
    ],
  ];
  for (const [text, expected] of FAULTS) {
    it(`says what is wrong, and where: ${expected}`, () => {
      assert.equal(faultsOf(text)[0], expected);
    });
  }

  it("reads the other documents where one is wrong", () => {
    const text = `a: [1\n---\n${POLICY}`;
    assert.deepEqual(idsOf(text), ["AuthorizationPolicy shop/web"]);
    assert.equal(faultsOf(text).length, 1);
  });

  it("is not to be exhausted", () => {
    const nested = "[".repeat(50_000);
    assert.deepEqual(faultsOf(nested).length, 1);
    const deep = `{apiVersion: v1, kind: Pod, a: ${"[".repeat(70)}${"]".repeat(70)}}`;
    assert.deepEqual(faultsOf(deep), ["1: nested deeper than 64 levels"]);
    const lists = Array.from({ length: 9 }, (_, index) => {
      return `l${index + 1}: &l${index + 1} [${`*l${index},`.repeat(9)}]`;
    });
    const laughs = `l0: &l0 [lol]\n${lists.join("\n")}\n`;
    assert.match(faultsOf(laughs).join(), /Excessive alias count/);
  });

  it("never throws, whatever the text", () => {
    const token = fc.constantFrom(
      ..."a: - [ ] { } , & * ! | > ' \" % @ ` # --- ... <<: ? : \n \t apiVersion kind v1 Pod".split(
        " ",
      ),
      "\n",
      "  ",
      "\u0000",
      "\ufeff",
    );
    fc.assert(
      fc.property(fc.array(token, { maxLength: 60 }), (tokens) => {
        for (const { origin } of parseFile("f", tokens.join("")).objects)
          assert.ok(origin.line > 0);
      }),
      { numRuns: 2_000 },
    );
    fc.assert(
      fc.property(fc.string(), (text) => void parseFile("f", text)),
      { numRuns: 500 },
    );
  });
});
