import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { complaintsForTest, interpretForTest, understoodForTest } from "./fixtures.ts";

const POD = `
apiVersion: v1
kind: Pod
metadata:
  name: web-7d4b9c-x2
  namespace: shop
  labels: {app: web, pod-template-hash: 7d4b9c}
  ownerReferences:
    - {apiVersion: apps/v1, kind: ReplicaSet, name: web-7d4b9c, controller: true}
spec:
  serviceAccountName: web
  nodeName: n1
  initContainers:
    - {name: setup, ports: [{name: setup, containerPort: 1}]}
    - {name: sidecar, restartPolicy: Always, ports: [{name: side, containerPort: 9090}]}
  containers:
    - name: web
      ports: [{name: http, containerPort: 8080}, {name: dns, containerPort: 53, protocol: UDP}]
status:
  phase: Running
  podIP: 10.244.1.5
  podIPs: [{ip: 10.244.1.5}, {ip: "FD00::5"}]
  conditions: [{type: Ready, status: "True"}]
`;

describe("a Pod", () => {
  it("is read as far as the mesh needs it", () => {
    const pod = understoodForTest("Pod", POD);
    assert.equal(pod.serviceAccount, "web");
    assert.equal(pod.node, "n1");
    assert.deepEqual(pod.addresses, ["10.244.1.5", "fd00::5"]);
    assert.deepEqual(
      [...pod.namedPorts],
      [
        ["http", 8080],
        ["side", 9090],
      ],
    );
    assert.equal(pod.isReady, true);
    assert.equal(pod.isTerminal, false);
    assert.equal(pod.hostNetwork, false);
  });

  const NAMES: readonly (readonly [string, string, string])[] = [
    ["a ReplicaSet's Deployment", POD, "web"],
    [
      "the ReplicaSet, where it has no Deployment",
      POD.replace("web-7d4b9c,", "web-other,"),
      "web-other",
    ],
    [
      "a Job's CronJob",
      POD.replace("ReplicaSet, name: web-7d4b9c", "Job, name: web-28391040"),
      "web",
    ],
    ["a Job", POD.replace("ReplicaSet, name: web-7d4b9c", "Job, name: web-once"), "web-once"],
    ["a StatefulSet", POD.replace("ReplicaSet, name: web-7d4b9c", "StatefulSet, name: db"), "db"],
    [
      "itself, where it belongs to a node",
      POD.replace("ReplicaSet, name: web-7d4b9c", "Node, name: n1"),
      "web-7d4b9c-x2",
    ],
    [
      "itself, where nothing controls it",
      POD.replace("controller: true", "controller: false"),
      "web-7d4b9c-x2",
    ],
  ];
  for (const [what, text, expected] of NAMES) {
    it(`is known by the name of ${what}`, () => {
      assert.equal(understoodForTest("Pod", text).workloadName, expected);
    });
  }

  it("is not ready while it goes, or has ended, or says so", () => {
    const isReady = (text: string) => understoodForTest("Pod", text).isReady;
    const going = 'name: web-7d4b9c-x2\n  deletionTimestamp: "2026-11-21T10:00:00Z"';
    assert.equal(isReady(POD.replace("name: web-7d4b9c-x2", going)), false);
    assert.equal(isReady(POD.replace("Running", "Succeeded")), false);
    assert.equal(isReady(POD.replace('"True"', '"False"')), false);
    assert.equal(understoodForTest("Pod", POD.replace("Running", "Failed")).isTerminal, true);
  });

  it("runs as default where it names no service account", () => {
    assert.equal(
      understoodForTest("Pod", POD.replace("serviceAccountName: web", "x: y")).serviceAccount,
      "default",
    );
  });

  const MISTAKES: readonly (readonly [string, string, string])[] = [
    ['ip: "FD00::5"', "ip: banana", 'status.podIPs.1.ip: Cannot read address "banana": not an IP'],
    [
      "phase: Running",
      "phase: Walking",
      'status.phase: expected Pending, Running, Succeeded, Failed, Unknown; got "Walking"',
    ],
    [
      "containerPort: 8080",
      "containerPort: 80800",
      "spec.containers.0.ports.0.containerPort: expected an integer from 1 to 65535, got 80800",
    ],
    [
      "labels: {app: web,",
      "labels: {app: 7,",
      "metadata.labels.app: expected a string, got 7, write it in quotes",
    ],
    [
      "serviceAccountName: web",
      "serviceAccountName: a/b",
      'spec.serviceAccountName: "a/b" cannot stand in an identity',
    ],
    ["nodeName: n1", "nodeName: [n1]", "spec.nodeName: expected a string, got a list"],
  ];
  for (const [from, to, expected] of MISTAKES) {
    it(`is refused: ${expected}`, () => {
      assert.deepEqual(complaintsForTest(POD.replace(from, to)), [expected]);
      assert.equal(interpretForTest(POD.replace(from, to)).kind, "refused");
    });
  }
});

const SERVICE = `
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec:
  selector: {app: web}
  clusterIP: 10.96.0.1
  clusterIPs: [10.96.0.1, "fd96::1"]
  ports:
    - {name: http, port: 80, targetPort: web}
    - {name: grpc-admin, port: 81, targetPort: 8081}
    - {name: dns, port: 53, protocol: UDP}
    - {name: db, port: 5432, appProtocol: kubernetes.io/h2c}
    - {name: constructor-x, port: 5433}
`;

function serviceOf(change: string, to = "") {
  return understoodForTest("Service", SERVICE.replace(change, to));
}

describe("a Service", () => {
  it("has addresses of both families and TCP ports", () => {
    const service = serviceOf("");
    assert.equal(service.type, "clusterIp");
    assert.deepEqual(service.virtualIps, ["10.96.0.1", "fd96::1"]);
    assert.deepEqual(service.ports, [
      { name: "http", port: 80, target: { kind: "name", name: "web" }, appProtocol: "http11" },
      { name: "grpc-admin", port: 81, target: { kind: "number", port: 8081 }, appProtocol: "grpc" },
      { name: "db", port: 5432, target: { kind: "number", port: 5432 }, appProtocol: "http2" },
      {
        name: "constructor-x",
        port: 5433,
        target: { kind: "number", port: 5433 },
        appProtocol: "unknown",
      },
    ]);
  });

  it("has none where it is headless, or only a name for another", () => {
    const single = SERVICE.replace('  clusterIPs: [10.96.0.1, "fd96::1"]\n', "");
    const headless = understoodForTest("Service", single.replace("10.96.0.1", "None"));
    assert.deepEqual([headless.type, headless.virtualIps], ["headless", []]);
    const external = serviceOf("selector:", "type: ExternalName\n  selector:");
    assert.deepEqual([external.type, external.virtualIps], ["externalName", []]);
  });

  it("is reached at its load balancer's address as well", () => {
    const status = "status: {loadBalancer: {ingress: [{ip: 192.0.2.1}, {hostname: lb}]}}\nspec:";
    assert.equal(serviceOf("spec:", status).virtualIps[2], "192.0.2.1");
  });

  const BALANCING: readonly (readonly [string, unknown])[] = [
    [
      "internalTrafficPolicy: Local",
      { routingPreference: ["node"], mode: "strict", healthPolicy: "onlyHealthy" },
    ],
    [
      "trafficDistribution: PreferClose",
      {
        routingPreference: ["network", "region", "zone"],
        mode: "failover",
        healthPolicy: "onlyHealthy",
      },
    ],
    [
      "trafficDistribution: PreferSameZone",
      {
        routingPreference: ["network", "region", "zone"],
        mode: "failover",
        healthPolicy: "onlyHealthy",
      },
    ],
    [
      "trafficDistribution: PreferSameNode",
      {
        routingPreference: ["network", "region", "zone", "subzone", "node"],
        mode: "failover",
        healthPolicy: "onlyHealthy",
      },
    ],
    [
      "publishNotReadyAddresses: true",
      { routingPreference: [], mode: "unspecified", healthPolicy: "allowAll" },
    ],
    ["internalTrafficPolicy: Cluster", undefined],
  ];
  for (const [field, expected] of BALANCING) {
    it(`chooses endpoints as ${field} asks`, () => {
      assert.deepEqual(serviceOf("selector:", `${field}\n  selector:`).loadBalancing, expected);
    });
  }

  it("takes traffic distribution from the annotation, too", () => {
    const annotated =
      "namespace: shop, annotations: {networking.istio.io/traffic-distribution: PreferClose}";
    assert.equal(serviceOf("namespace: shop", annotated).loadBalancing?.mode, "failover");
  });

  it("keeps clients on one endpoint, for three hours unless it says how long", () => {
    assert.equal(serviceOf("").sessionAffinityMs, undefined);
    const affinity = "sessionAffinity: ClientIP\n  selector:";
    assert.equal(serviceOf("selector:", affinity).sessionAffinityMs, 10_800_000);
    const limited = `sessionAffinityConfig: {clientIP: {timeoutSeconds: 10}}\n  ${affinity}`;
    assert.equal(serviceOf("selector:", limited).sessionAffinityMs, 10_000);
  });

  it("knows its families", () => {
    const familiesOf = (list: string) =>
      serviceOf("selector:", `ipFamilies: ${list}\n  selector:`).ipFamilies;
    assert.equal(familiesOf("[IPv4]"), "ipv4Only");
    assert.equal(familiesOf("[IPv6]"), "ipv6Only");
    assert.equal(familiesOf("[IPv6, IPv4]"), "dual");
    assert.equal(serviceOf("").ipFamilies, "automatic");
  });

  const REMARKS: readonly (readonly [string, string, string])[] = [
    [
      "selector:",
      "sessionAfinity: None\n  selector:",
      'spec.sessionAfinity: unknown field, is "sessionAffinity" meant',
    ],
    [
      "selector:",
      "trafficDistribution: Near\n  selector:",
      'spec.trafficDistribution: "Near" is not known, no endpoint is preferred',
    ],
    [
      'clusterIP: 10.96.0.1\n  clusterIPs: [10.96.0.1, "fd96::1"]',
      "x-a: 1",
      "spec.x-a: unknown field",
    ],
    [
      "namespace: shop",
      "namespace: shop, annotations: {networking.istio.io/exportTo: a}",
      'metadata.annotations.networking.istio.io/exportTo: "a" is not served, "*" and "." are; the service is public',
    ],
    [
      "namespace: shop",
      "namespace: shop, labels: {istio.io/use-waypoint: w}",
      'metadata.labels.istio.io/use-waypoint: waypoints are not served by this release; traffic does not pass "w"',
    ],
  ];
  for (const [from, to, expected] of REMARKS) {
    it(`is in force, though: ${expected}`, () => {
      assert.equal(interpretForTest(SERVICE.replace(from, to)).kind, "understood");
      assert.ok(complaintsForTest(SERVICE.replace(from, to)).includes(expected));
    });
  }

  const MISTAKES: readonly (readonly [string, string, string])[] = [
    [
      'clusterIPs: [10.96.0.1, "fd96::1"]',
      "clusterIPs: [10.96.0.1, fd96]",
      'spec.clusterIPs.1: Cannot read address "fd96": not an IP',
    ],
    [
      "clusterIP: 10.96.0.1",
      "clusterIP: 10.96.0.2",
      'spec.clusterIP: differs from the first of clusterIPs, "10.96.0.1"',
    ],
    ["port: 80,", "port: 0,", "spec.ports.0.port: expected an integer from 1 to 65535, got 0"],
    ["port: 81,", "port: 80,", "spec.ports.1.port: 80 stands twice"],
    ["name: db,", "name: http,", 'spec.ports.3.name: "http" stands twice'],
    ["{name: db, ", "{", "spec.ports.3.name: is missing, ports need names where there are several"],
    [
      "targetPort: web",
      'targetPort: "8080"',
      'spec.ports.0.targetPort: expected a number or the name of a port, got "8080"',
    ],
    [
      "targetPort: 8081",
      "targetPort: 99999",
      "spec.ports.1.targetPort: expected an integer from 1 to 65535, got 99999",
    ],
    ["protocol: UDP", "protocol: udp", 'spec.ports.2.protocol: expected TCP, UDP, SCTP; got "udp"'],
    ["selector: {app: web}", "selector: [app]", "spec.selector: expected a map, got a list"],
  ];
  for (const [from, to, expected] of MISTAKES) {
    it(`is refused: ${expected}`, () => {
      assert.deepEqual(complaintsForTest(SERVICE.replace(from, to)), [expected]);
      assert.equal(interpretForTest(SERVICE.replace(from, to)).kind, "refused");
    });
  }

  it("says that it cannot be reached without an address", () => {
    const text = SERVICE.replace(/ {2}clusterIP.*\n/g, "");
    assert.deepEqual(complaintsForTest(text), [
      'spec.clusterIP: the service has no address: give it one, or "None" for a headless service',
    ]);
  });
});

const SLICE = `
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: db-1, namespace: shop, labels: {kubernetes.io/service-name: db}}
addressType: IPv4
ports: [{name: sql, port: 5432}, {name: stats, port: 8125, protocol: UDP}]
endpoints:
  - {addresses: [192.0.2.7], conditions: {ready: false}, zone: z1}
  - {addresses: [10.244.1.5], nodeName: n1, targetRef: {kind: Pod, name: db-0}}
`;

describe("an EndpointSlice", () => {
  it("tells of a service's endpoints", () => {
    const slice = understoodForTest("EndpointSlice", SLICE);
    assert.equal(slice.service, "db");
    assert.deepEqual([...slice.ports], [["sql", 5432]]);
    assert.deepEqual(slice.endpoints, [
      { addresses: ["192.0.2.7"], isReady: false, node: "", pod: undefined, zone: "z1" },
      { addresses: ["10.244.1.5"], isReady: true, node: "n1", pod: "db-0", zone: "" },
    ]);
  });

  it("is refused where an address is none, or its type is not known", () => {
    assert.deepEqual(complaintsForTest(SLICE.replace("192.0.2.7", "192.0.2")), [
      'endpoints.0.addresses.0: Cannot read address "192.0.2": not an IP',
    ]);
    assert.deepEqual(complaintsForTest(SLICE.replace("IPv4", "IPv5")), [
      'addressType: expected IPv4, IPv6, FQDN; got "IPv5"',
    ]);
  });
});

describe("a kind of object", () => {
  const KINDS: readonly (readonly [string, string, string])[] = [
    ["gateway.networking.k8s.io/v1", "HTTPRoute", "kind: HTTPRoute is not served by this release"],
    ["networking.istio.io/v1", "ServiceEntry", "kind: ServiceEntry is not served by this release"],
    [
      "security.istio.io/v1",
      "RequestAuthentication",
      "kind: RequestAuthentication is not served by this release",
    ],
    ["v1", "Servce", 'apiVersion: "v1" has no kind "Servce"'],
    [
      "v1",
      "AuthorizationPolicy",
      'apiVersion: "v1" has no kind "AuthorizationPolicy", it belongs to "security.istio.io/v1"',
    ],
    [
      "security.istio.io/v2",
      "AuthorizationPolicy",
      'apiVersion: "security.istio.io/v2" is not known, known are "security.istio.io/v1", "security.istio.io/v1beta1"',
    ],
  ];
  for (const [apiVersion, kind, expected] of KINDS) {
    it(`is not served silently: ${expected}`, () => {
      const text = `{apiVersion: ${apiVersion}, kind: ${kind}, metadata: {name: a}}`;
      assert.deepEqual(complaintsForTest(text), [expected]);
    });
  }
});

describe("any object", () => {
  const anything = fc.jsonValue({ maxDepth: 5 });
  const mutated = fc.record({ at: fc.nat(), value: anything });

  it("is understood or refused, whatever one of its fields is replaced by", () => {
    for (const text of [POD, SERVICE, SLICE]) {
      fc.assert(
        fc.property(fc.array(mutated, { minLength: 1, maxLength: 4 }), (changes) => {
          const lines = text.split("\n");
          for (const { at, value } of changes) {
            const index = at % lines.length;
            const line = lines[index] ?? "";
            if (!/^ {2,}\S.*:/.test(line) || line.includes("name")) continue;
            lines[index] = line.replace(/:.*/, () => `: ${JSON.stringify(value)}`);
          }
          try {
            interpretForTest(lines.join("\n"));
          } catch (error) {
            // The change made the text no YAML; anything else is ours.
            if (!(error instanceof Error && error.message.startsWith("line "))) throw error;
          }
        }),
        { numRuns: 300 },
      );
    }
  });
});
