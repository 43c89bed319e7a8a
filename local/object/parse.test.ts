import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { readDocuments } from "./document.ts";
import type { DeploymentObject, LocalObject, PodObject, ServiceObject } from "./object.ts";
import { parseObject } from "./parse.ts";

const FILE = "/shop/objects.yaml";

function parse(yaml: string) {
  const [document] = readDocuments(FILE, yaml).documents;
  assert.ok(document);
  return parseObject(document);
}

function object(yaml: string): LocalObject {
  const { object: parsed, problems } = parse(yaml);
  assert.ok(parsed, JSON.stringify(problems));
  return parsed;
}

/** `line field: reason` of each problem. */
function complaints(yaml: string): readonly string[] {
  return parse(yaml).problems.map(({ line, field, reason }) => `${line} ${field}: ${reason}`);
}

const pod = (fields: string) => `apiVersion: v1
kind: Pod
metadata: { name: web, namespace: shop }
spec:
  containers:
  - name: main
    command: [run]
${fields}`;

const service = (fields: string) => `apiVersion: v1
kind: Service
metadata: { name: web }
spec:
  ports: [{ port: 80 }]
${fields}`;

describe("parseObject()", () => {
  it("fills in what Kubernetes would", () => {
    const { metadata, spec } = object(pod("")) as PodObject;
    assert.equal(metadata.namespace, "shop");
    const { serviceAccount, restartPolicy, terminationGraceMs, nodeName } = spec;
    assert.deepEqual(
      { serviceAccount, restartPolicy, terminationGraceMs, nodeName },
      {
        serviceAccount: "default",
        restartPolicy: "Always",
        terminationGraceMs: 30_000,
        nodeName: undefined,
      },
    );
    assert.equal(spec.containers[0]?.workingDir, "/shop", "a program lies beside its YAML");
  });

  it("refuses kinds that are no names: they become names of files", () => {
    for (const kind of ["../../../tmp/x", "constructor", "__proto__", "a.b"]) {
      const yaml = `apiVersion: v1\nkind: "${kind}"\nmetadata: { name: x }\n`;
      assert.equal(parse(yaml).object, undefined, kind);
      assert.match(complaints(yaml).join(), /^2 kind: "/, kind);
    }
  });

  it("gives probes the defaults of Kubernetes, and finds ports by name", () => {
    const probe = "    ports: [{ name: http, containerPort: 8080 }]\n";
    const { spec } = object(
      pod(`${probe}    readinessProbe: { httpGet: { port: http } }`),
    ) as PodObject;
    assert.deepEqual(spec.containers[0]?.readiness, {
      handler: {
        kind: "httpGet",
        path: "/",
        port: 8080,
        host: undefined,
        scheme: "HTTP",
        headers: [],
      },
      initialDelayMs: 0,
      periodMs: 10_000,
      timeoutMs: 1_000,
      successThreshold: 1,
      failureThreshold: 3,
    });
  });

  it("honours nodeName, and the node selector for a host name", () => {
    const named = object(pod("  nodeName: n2")) as PodObject;
    const selected = object(pod("  nodeSelector: { kubernetes.io/hostname: n2 }")) as PodObject;
    assert.deepEqual([named.spec.nodeName, selected.spec.nodeName], ["n2", "n2"]);
  });

  it("names the line and the field of everything that is wrong", () => {
    assert.deepEqual(complaints(pod("    argz: [a]\n    env: [{ name: A, value: 1 }]")), [
      "9 spec.containers[0].env[0].value: expected a text, not 1: quote it",
      "8 spec.containers[0].argz: is not a field that exists here",
    ]);
    assert.deepEqual(complaints(pod("  restartPolicy: Sometimes")), [
      '8 spec.restartPolicy: expected "Always", "OnFailure", "Never", not "Sometimes"',
    ]);
  });

  it("refuses what would not be as its author meant it, and notes what has no effect", () => {
    assert.deepEqual(complaints(pod("  hostNetwork: true")), [
      "8 spec.hostNetwork: the local runtime does not share it",
    ]);
    assert.deepEqual(complaints("apiVersion: apps/v1\nkind: StatefulSet\nmetadata: {name: a}"), [
      '2 kind: "StatefulSet" does not run here: use a Deployment or a Pod',
    ]);
    const { object: parsed, problems } = parse(pod("  securityContext: {}"));
    assert.ok(parsed);
    assert.deepEqual(
      problems.map(({ severity }) => severity),
      ["note"],
    );
  });

  it("refuses a misspelt mesh mode, which would leave pods outside without a word", () => {
    const yaml = `apiVersion: v1
kind: Namespace
metadata:
  name: shop
  labels: { istio.io/dataplane-mode: ambiemt }`;
    assert.deepEqual(complaints(yaml), [
      '5 metadata.labels: istio.io/dataplane-mode: expected "ambient" or "none", not "ambiemt"',
    ]);
  });

  it("reads a Deployment, and refuses a selector that misses its own pods", () => {
    const yaml = (label: string) => `apiVersion: apps/v1
kind: Deployment
metadata: { name: web }
spec:
  selector: { matchLabels: { app: web } }
  strategy: { rollingUpdate: { maxSurge: 1, maxUnavailable: 50% } }
  template:
    metadata: { labels: { app: ${label} } }
    spec: { containers: [{ name: main, command: [run], args: [fast] }] }`;
    const { replicas, strategy, template } = object(yaml("web")) as DeploymentObject;
    assert.equal(replicas, 1);
    assert.deepEqual(strategy, {
      kind: "RollingUpdate",
      surge: { pods: 1 },
      unavailable: { percent: 50 },
    });
    assert.deepEqual(template.spec.containers[0]?.command, ["run", "fast"]);
    assert.deepEqual(complaints(yaml("wep")), [
      '5 spec.selector.matchLabels: "app: web" is not among the template\'s labels',
    ]);
  });

  it("reads the ways a Service has addresses", () => {
    const kinds = ["", "  clusterIP: None", "  clusterIP: 10.96.0.99"].map((fields) => {
      const { addressing, families } = object(service(fields)) as ServiceObject;
      return { addressing, families };
    });
    const families = ["IPv4"];
    assert.deepEqual(kinds, [
      { addressing: { kind: "virtual", requested: [] }, families },
      { addressing: { kind: "headless" }, families },
      { addressing: { kind: "virtual", requested: ["10.96.0.99"] }, families },
    ]);
  });

  it("gives a Service one family, unless it asks for two or for the other", () => {
    const families = [
      "  ipFamilyPolicy: PreferDualStack",
      "  ipFamilies: [IPv6]",
      "  ipFamilies: [IPv6, IPv4]",
      "  ipFamilyPolicy: SingleStack",
    ].map((fields) => (object(service(fields)) as ServiceObject).families);
    assert.deepEqual(families, [["IPv4", "IPv6"], ["IPv6"], ["IPv4", "IPv6"], ["IPv4"]]);
  });

  it("passes objects of other kinds on unread", () => {
    const { kind } = object("apiVersion: x.io/v1\nkind: Thing\nmetadata: {name: a}\nspec: {b: c}");
    assert.equal(kind, "Other");
  });
});

describe("readDocuments()", () => {
  it("reads the other documents of a file in which one cannot be read", () => {
    const { documents, problems } = readDocuments(FILE, "a: 1\n---\nb: [\n---\n\n# c\nc: 3\n");
    assert.deepEqual(
      documents.map(({ line, text }) => [line, text]),
      [
        [1, "a: 1\n"],
        [7, "c: 3\n"],
      ],
    );
    assert.equal(problems.length, 1);
    assert.match(problems[0]?.reason ?? "", /^Cannot read YAML: /);
  });

  it("refuses aliases that grow without end", () => {
    const names = Array.from({ length: 9 }, (_, i) => String.fromCharCode(98 + i));
    const lines = names.map((name, i) => {
      const before = i === 0 ? "x" : `*${names[i - 1]}`;
      return `${name}: &${name} [${Array.from({ length: 9 }, () => before).join(", ")}]`;
    });
    const { problems } = readDocuments(FILE, lines.join("\n"));
    assert.match(problems[0]?.reason ?? "", /Excessive alias count/);
  });
});
