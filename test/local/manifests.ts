/** Small YAML for the runtime, with the programs in it. */

/** Answers every request with its pod's name and the client's address. */
const SERVER = `
  const { createServer } = require("node:http");
  let healthy = true;
  createServer((request, response) => {
    if (request.url === "/crash") process.exit(3);
    if (request.url === "/sick") healthy = false;
    if (request.url === "/healthz" && !healthy) response.statusCode = 503;
    response.end(process.env.POD + " " + request.socket.remoteAddress + "\\n");
  }).listen(8080, "::", () => console.log("listening in", process.env.POD));
`;

export interface ServerOptions {
  readonly name?: string;
  readonly namespace?: string;
  readonly replicas?: number;
  /** YAML of further fields of the container, eight spaces in. */
  readonly container?: string;
}

export function namespace(name: string, labels = "{}"): string {
  return `apiVersion: v1\nkind: Namespace\nmetadata: { name: ${name}, labels: ${labels} }\n`;
}

/** A Deployment of servers and its Service on port 80. */
export function server(options: ServerOptions = {}): string {
  const { name = "web", namespace: ns = "shop", replicas = 2, container = "" } = options;
  return `apiVersion: apps/v1
kind: Deployment
metadata: { name: ${name}, namespace: ${ns} }
spec:
  replicas: ${replicas}
  selector: { matchLabels: { app: ${name} } }
  template:
    metadata: { labels: { app: ${name} } }
    spec:
      terminationGracePeriodSeconds: 2
      containers:
      - name: server
        image: none
        command: [node, -e, ${JSON.stringify(SERVER)}]
        env:
        - { name: POD, valueFrom: { fieldRef: { fieldPath: metadata.name } } }
        ports: [{ name: http, containerPort: 8080 }]
        readinessProbe: { httpGet: { path: /healthz, port: http }, periodSeconds: 1, failureThreshold: 1 }
${container}
---
apiVersion: v1
kind: Service
metadata: { name: ${name}, namespace: ${ns} }
spec:
  ipFamilyPolicy: PreferDualStack
  selector: { app: ${name} }
  ports: [{ port: 80, targetPort: http }]
`;
}

export interface PodOptions {
  readonly namespace?: string;
  readonly node?: string;
  readonly command?: readonly string[];
  /** YAML of further fields of the container, four spaces in. */
  readonly container?: string;
  /** YAML of further fields of the spec, two spaces in. */
  readonly spec?: string;
}

/** A pod that sleeps unless it is told to do something else. */
export function pod(name: string, options: PodOptions = {}): string {
  const { namespace: ns = "shop", node, command = ["sleep", "infinity"] } = options;
  return `apiVersion: v1
kind: Pod
metadata: { name: ${name}, namespace: ${ns}, labels: { app: ${name} } }
spec:
  terminationGracePeriodSeconds: 1
${node === undefined ? "" : `  nodeName: ${node}`}
${options.spec ?? ""}
  containers:
  - name: main
    command: ${JSON.stringify(command)}
${options.container ?? ""}
`;
}

export function documents(...texts: readonly string[]): string {
  return texts.join("---\n");
}
