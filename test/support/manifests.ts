/** Kubernetes YAML for tests, from a few words. */

/** The program that serves every kind of traffic, and the one that calls it. */
export const SERVER = new URL("../mesh/apps/server.mjs", import.meta.url).pathname;
export const CLIENT = new URL("../mesh/apps/client.mjs", import.meta.url).pathname;

/** One document for each, to be given to the local runtime. */
export function manifests(...documents: readonly string[]): string {
  return documents.join("\n---\n");
}

export function namespace(name: string, mode: "ambient" | "none" = "ambient"): string {
  return document("v1", "Namespace", { name, labels: { "istio.io/dataplane-mode": mode } });
}

function serviceAccount(namespaceName: string, name: string): string {
  return document("v1", "ServiceAccount", { name, namespace: namespaceName });
}

export interface PodOptions {
  readonly node?: string;
  readonly serviceAccount?: string;
  readonly command?: readonly string[];
  /** Ready once something listens there. */
  readonly readyPort?: number;
  readonly annotations?: Readonly<Record<string, string>>;
}

/** A pod with label `app: <name>`. Without a command it does nothing, for ever. */
export function pod(namespaceName: string, name: string, options: PodOptions = {}): string {
  const { node, serviceAccount, command = ["sleep", "infinity"], readyPort } = options;
  const { annotations = {} } = options;
  const probe = { tcpSocket: { port: readyPort }, periodSeconds: 1 };
  const fieldRef = { fieldPath: "metadata.name" };
  const container = {
    name: "main",
    command,
    env: [{ name: "POD_NAME", valueFrom: { fieldRef } }],
    ...(readyPort === undefined ? {} : { readinessProbe: probe }),
  };
  return document(
    "v1",
    "Pod",
    { name, namespace: namespaceName, labels: { app: name }, annotations },
    {
      ...(node === undefined ? {} : { nodeName: node }),
      ...(serviceAccount === undefined ? {} : { serviceAccountName: serviceAccount }),
      containers: [container],
    },
  );
}

/** A pod that runs server.mjs, with a service account of its name. */
export function server(namespaceName: string, name: string, node: string): string {
  const command = [process.execPath, SERVER];
  return manifests(
    serviceAccount(namespaceName, name),
    pod(namespaceName, name, { node, command, readyPort: 8080, serviceAccount: name }),
  );
}

/** A pod to run things in, with a service account of its name. */
export function client(namespaceName: string, name: string, node: string): string {
  return manifests(
    serviceAccount(namespaceName, name),
    pod(namespaceName, name, { node, serviceAccount: name }),
  );
}

/** A service of the pods with label `app: <name>`, with the same port numbers as they have. */
export function service(namespaceName: string, name: string, ports: readonly number[]): string {
  const list = ports.map((port) => ({ name: `p${port}`, port, targetPort: port }));
  const spec = { selector: { app: name }, ports: list, ipFamilyPolicy: "PreferDualStack" };
  return document("v1", "Service", { name, namespace: namespaceName }, spec);
}

/** An AuthorizationPolicy for the pods with label `app: <app>`. */
export function policy(
  namespaceName: string,
  name: string,
  app: string,
  action: "ALLOW" | "DENY",
  rules: readonly unknown[],
): string {
  return document(
    "security.istio.io/v1",
    "AuthorizationPolicy",
    { name, namespace: namespaceName },
    { selector: { matchLabels: { app } }, action, rules },
  );
}

export function peerAuthentication(namespaceName: string, mode: "STRICT" | "PERMISSIVE"): string {
  const metadata = { name: "default", namespace: namespaceName };
  return document("security.istio.io/v1", "PeerAuthentication", metadata, { mtls: { mode } });
}

function document(apiVersion: string, kind: string, metadata: object, spec?: object): string {
  return JSON.stringify({ apiVersion, kind, metadata, spec }, undefined, 2);
}
