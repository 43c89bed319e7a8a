import { dirname, resolve } from "node:path";
import type { FieldReader } from "./field-reader.ts";
import type {
  ContainerPort,
  ContainerSpec,
  EnvironmentEntry,
  PodField,
  PodSpec,
  RestartPolicy,
} from "./object.ts";
import { parseProbe } from "./parse-probe.ts";

const RESTART_POLICIES: readonly RestartPolicy[] = ["Always", "OnFailure", "Never"];
const POD_FIELDS: readonly PodField[] = [
  "metadata.name",
  "metadata.namespace",
  "metadata.uid",
  "spec.nodeName",
  "spec.serviceAccountName",
  "status.hostIP",
  "status.podIP",
  "status.podIPs",
];
const HOSTNAME_LABEL = "kubernetes.io/hostname";
const CONTAINER_NAME = /^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$/;
const VARIABLE_NAME = /^[-._a-zA-Z][-._a-zA-Z0-9]*$/;
const ONE_DAY_SECONDS = 86_400;

/**
 * @param file  where the pod is written: commands run in that file's folder unless they say
 *   where, so that a program can lie beside its YAML
 */
export function parsePodSpec(reader: FieldReader, file: string): PodSpec {
  const containers = reader.objects("containers").map((each) => parseContainer(each, file));
  if (containers.length === 0) reader.complain("containers", "is missing: a pod has at least one");
  const names = new Set<string>();
  for (const { name } of containers) {
    if (names.has(name)) reader.complain("containers", `"${name}" is there twice`);
    names.add(name);
  }
  const graceSeconds = reader.integer("terminationGracePeriodSeconds", {
    min: 0,
    max: ONE_DAY_SECONDS,
  });
  const serviceAccount = reader.text("serviceAccountName") ?? reader.text("serviceAccount");
  const spec: PodSpec = {
    serviceAccount: serviceAccount ?? "default",
    nodeName: parseNode(reader),
    hostname: reader.text("hostname"),
    restartPolicy: reader.oneOf("restartPolicy", RESTART_POLICIES) ?? "Always",
    terminationGraceMs: (graceSeconds ?? 30) * 1_000,
    containers,
    raw: reader.mapping,
  };
  checkIgnored(reader);
  reader.finish();
  return spec;
}

function parseNode(reader: FieldReader): string | undefined {
  const selector = reader.object("nodeSelector");
  const selected = selector?.text(HOSTNAME_LABEL);
  selector?.accept("kubernetes.io/os", "kubernetes.io/arch");
  selector?.finish();
  const nodeName = reader.text("nodeName");
  if (nodeName !== undefined && selected !== undefined && nodeName !== selected) {
    reader.complain("nodeName", `"${nodeName}" contradicts the nodeSelector "${selected}"`);
  }
  return nodeName ?? selected;
}

function checkIgnored(reader: FieldReader): void {
  reader.accept("serviceAccount", "dnsPolicy", "schedulerName", "enableServiceLinks", "priority");
  reader.accept("imagePullSecrets", "automountServiceAccountToken", "priorityClassName");
  reader.accept("preemptionPolicy", "tolerations", "os", "runtimeClassName", "overhead");
  for (const name of ["securityContext", "affinity", "topologySpreadConstraints"]) {
    reader.note(name, "has no effect in the local runtime");
  }
  reader.refuse(["volumes"], "the local runtime has no volumes: the host's files are there");
  reader.refuse(["initContainers"], "the local runtime has no init containers");
  reader.refuse(["hostNetwork", "hostPID", "hostIPC"], "the local runtime does not share it");
  const unsupported = ["ephemeralContainers", "hostAliases", "dnsConfig", "subdomain"];
  unsupported.push("activeDeadlineSeconds", "readinessGates", "shareProcessNamespace");
  reader.refuse(unsupported, "is not supported by the local runtime");
}

function parseContainer(reader: FieldReader, file: string): ContainerSpec {
  const name = reader.requiredText("name");
  if (name !== "" && !CONTAINER_NAME.test(name)) {
    reader.complain("name", `"${name}" is not a name: lower case letters, digits and "-" only`);
  }
  const command = reader.texts("command") ?? [];
  const args = reader.texts("args") ?? [];
  if (command.length === 0) {
    reader.complain("command", "is missing: images are not pulled, so the command has to be given");
  }
  const ports = reader.objects("ports").map(parsePort);
  const workingDir = resolve(dirname(file), reader.text("workingDir") ?? ".");
  const environment = reader.objects("env").map(parseEnvironment);
  const startup = parseProbe(reader.object("startupProbe"), "startup", ports);
  const readiness = parseProbe(reader.object("readinessProbe"), "readiness", ports);
  const liveness = parseProbe(reader.object("livenessProbe"), "liveness", ports);
  reader.accept("image", "imagePullPolicy", "resources", "tty", "stdin", "stdinOnce");
  reader.accept("terminationMessagePath", "terminationMessagePolicy");
  reader.note("securityContext", "has no effect in the local runtime");
  reader.refuse(["volumeMounts", "volumeDevices"], "the local runtime has no volumes");
  reader.refuse(["envFrom", "lifecycle"], "is not supported by the local runtime");
  reader.refuse(["restartPolicy", "resizePolicy"], "is not supported by the local runtime");
  reader.finish();
  return {
    name,
    command: [...command, ...args],
    workingDir,
    environment,
    ports,
    startup,
    readiness,
    liveness,
  };
}

function parsePort(reader: FieldReader): ContainerPort {
  const port = reader.integer("containerPort", { min: 1, max: 65_535 });
  if (port === undefined) reader.complain("containerPort", "expected a port");
  const protocol = reader.oneOf("protocol", ["TCP", "UDP"]) ?? "TCP";
  const name = reader.text("name");
  reader.refuse(["hostPort", "hostIP"], "the local runtime opens no ports on the host");
  reader.finish();
  return { name, port: port ?? 0, protocol };
}

function parseEnvironment(reader: FieldReader): EnvironmentEntry {
  const name = reader.requiredText("name");
  if (name !== "" && !VARIABLE_NAME.test(name)) {
    reader.complain("name", `"${name}" is not the name of a variable`);
  }
  const value = reader.text("value");
  const source = reader.object("valueFrom");
  reader.finish();
  if (source === undefined) return { kind: "value", name, value: value ?? "" };
  const reference = source.requiredObject("fieldRef");
  const field = reference.oneOf("fieldPath", POD_FIELDS);
  if (field === undefined) reference.complain("fieldPath", "names no field of the pod");
  reference.accept("apiVersion");
  reference.finish();
  source.finish();
  return { kind: "field", name, field: field ?? "metadata.name" };
}
