/**
 * What the runtime itself understands of the user's objects. Every other object is handed to the
 * control server as it is.
 */

export interface Metadata {
  /** "" for an object that lives in no namespace. */
  readonly namespace: string;
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly annotations: Readonly<Record<string, string>>;
}

export type ProbeHandler =
  | { readonly kind: "exec"; readonly command: readonly string[] }
  | {
      readonly kind: "httpGet";
      readonly path: string;
      readonly port: number;
      /** undefined for the pod's own address. */
      readonly host: string | undefined;
      readonly scheme: "HTTP" | "HTTPS";
      readonly headers: readonly (readonly [name: string, value: string])[];
    }
  | { readonly kind: "tcpSocket"; readonly port: number; readonly host: string | undefined };

/** @see https://kubernetes.io/docs/tasks/configure-pod-container/configure-liveness-readiness-startup-probes/ */
export interface ProbeSpec {
  readonly handler: ProbeHandler;
  readonly initialDelayMs: number;
  readonly periodMs: number;
  readonly timeoutMs: number;
  readonly successThreshold: number;
  readonly failureThreshold: number;
}

export type PodField =
  | "metadata.name"
  | "metadata.namespace"
  | "metadata.uid"
  | "spec.nodeName"
  | "spec.serviceAccountName"
  | "status.hostIP"
  | "status.podIP"
  | "status.podIPs";

export type EnvironmentEntry =
  | { readonly kind: "value"; readonly name: string; readonly value: string }
  | { readonly kind: "field"; readonly name: string; readonly field: PodField };

export type TransportProtocol = "TCP" | "UDP";

export interface ContainerPort {
  readonly name: string | undefined;
  readonly port: number;
  readonly protocol: TransportProtocol;
}

export interface ContainerSpec {
  readonly name: string;
  /** Command and arguments. */
  readonly command: readonly string[];
  /** Absolute. */
  readonly workingDir: string;
  readonly environment: readonly EnvironmentEntry[];
  readonly ports: readonly ContainerPort[];
  readonly startup: ProbeSpec | undefined;
  readonly readiness: ProbeSpec | undefined;
  readonly liveness: ProbeSpec | undefined;
}

export type RestartPolicy = "Always" | "OnFailure" | "Never";

export interface PodSpec {
  readonly serviceAccount: string;
  /** Where the pod has to run; undefined leaves it to the runtime. */
  readonly nodeName: string | undefined;
  readonly hostname: string | undefined;
  readonly restartPolicy: RestartPolicy;
  readonly terminationGraceMs: number;
  readonly containers: readonly ContainerSpec[];
  /** As the user wrote it, for those who read more of it than the runtime does. */
  readonly raw: Readonly<Record<string, unknown>>;
}

/** A number of pods, or a share of the replicas in percent. */
export type Quantity = { readonly pods: number } | { readonly percent: number };

export type Strategy =
  | { readonly kind: "Recreate" }
  | {
      readonly kind: "RollingUpdate";
      readonly surge: Quantity;
      readonly unavailable: Quantity;
    };

export interface NamespaceObject {
  readonly kind: "Namespace";
  readonly metadata: Metadata;
}

export interface ServiceAccountObject {
  readonly kind: "ServiceAccount";
  readonly metadata: Metadata;
}

export interface PodObject {
  readonly kind: "Pod";
  readonly metadata: Metadata;
  readonly spec: PodSpec;
}

export interface DeploymentObject {
  readonly kind: "Deployment";
  readonly metadata: Metadata;
  readonly replicas: number;
  readonly strategy: Strategy;
  readonly template: {
    readonly labels: Readonly<Record<string, string>>;
    readonly annotations: Readonly<Record<string, string>>;
    readonly spec: PodSpec;
  };
}

export interface ServicePort {
  readonly name: string | undefined;
  readonly port: number;
  /** A number, or the name of a container's port. */
  readonly targetPort: number | string;
  readonly protocol: TransportProtocol;
  readonly appProtocol: string | undefined;
}

export type IpFamily = "IPv4" | "IPv6";

export interface ServiceObject {
  readonly kind: "Service";
  readonly metadata: Metadata;
  readonly selector: Readonly<Record<string, string>> | undefined;
  readonly ports: readonly ServicePort[];
  readonly addressing:
    | { readonly kind: "virtual"; readonly requested: readonly string[] }
    | { readonly kind: "headless" }
    | { readonly kind: "external"; readonly hostname: string };
  readonly families: readonly IpFamily[];
  readonly publishNotReady: boolean;
  /** A client keeps going to the endpoint it went to first. */
  readonly affinity: boolean;
  readonly raw: Readonly<Record<string, unknown>>;
}

/** An object that the runtime only passes on. */
export interface OtherObject {
  readonly kind: "Other";
  readonly apiVersion: string;
  readonly objectKind: string;
  readonly metadata: Metadata;
}

export type LocalObject =
  | NamespaceObject
  | ServiceAccountObject
  | PodObject
  | DeploymentObject
  | ServiceObject
  | OtherObject;

/** `Deployment shop/cart`: what messages call it, and its key in the store. */
export function nameOf(object: LocalObject): string {
  const kind = object.kind === "Other" ? object.objectKind : object.kind;
  return nameOfObject(kind, object.metadata.namespace, object.metadata.name);
}

export function nameOfObject(kind: string, namespace: string, name: string): string {
  return namespace === "" ? `${kind} ${name}` : `${kind} ${namespace}/${name}`;
}
