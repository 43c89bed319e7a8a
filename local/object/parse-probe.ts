import type { FieldReader, IntegerRange } from "./field-reader.ts";
import type { ContainerPort, ProbeHandler, ProbeSpec } from "./object.ts";

export type ProbeKind = "startup" | "readiness" | "liveness";

const HANDLERS = ["exec", "httpGet", "tcpSocket"] as const;
const SECONDS: IntegerRange = { min: 1, max: 86_400 };
const DELAY_SECONDS: IntegerRange = { min: 0, max: 86_400 };
const COUNT: IntegerRange = { min: 1, max: 1_000 };

export function parseProbe(
  reader: FieldReader | undefined,
  kind: ProbeKind,
  ports: readonly ContainerPort[],
): ProbeSpec | undefined {
  if (reader === undefined) return undefined;
  const handler = parseHandler(reader, ports);
  const delaySeconds = reader.integer("initialDelaySeconds", DELAY_SECONDS) ?? 0;
  const periodSeconds = reader.integer("periodSeconds", SECONDS) ?? 10;
  const timeoutSeconds = reader.integer("timeoutSeconds", SECONDS) ?? 1;
  const successThreshold = reader.integer("successThreshold", COUNT) ?? 1;
  const failureThreshold = reader.integer("failureThreshold", COUNT) ?? 3;
  if (kind !== "readiness" && successThreshold !== 1) {
    reader.complain("successThreshold", `must be 1 for a ${kind} probe`);
  }
  reader.refuse(["grpc"], "the local runtime has no grpc probes");
  reader.refuse(["terminationGracePeriodSeconds"], "is not supported by the local runtime");
  reader.finish();
  if (handler === undefined) return undefined;
  return {
    handler,
    initialDelayMs: delaySeconds * 1_000,
    periodMs: periodSeconds * 1_000,
    timeoutMs: timeoutSeconds * 1_000,
    successThreshold,
    failureThreshold,
  };
}

function parseHandler(
  reader: FieldReader,
  ports: readonly ContainerPort[],
): ProbeHandler | undefined {
  const given = HANDLERS.map((kind) => ({ kind, fields: reader.object(kind) }));
  const [handler, second] = given.filter(({ fields }) => fields !== undefined);
  if (handler?.fields === undefined || second !== undefined) {
    const [name = ""] = reader.path.slice(-1).map(String);
    reader.complain(second?.kind ?? name, "a probe is one of exec, httpGet and tcpSocket");
    return undefined;
  }
  const { kind, fields } = handler;
  const parsed = parseFields(kind, fields, ports);
  fields.finish();
  return parsed;
}

function parseFields(
  kind: (typeof HANDLERS)[number],
  fields: FieldReader,
  ports: readonly ContainerPort[],
): ProbeHandler {
  switch (kind) {
    case "exec": {
      const command = fields.texts("command") ?? [];
      if (command.length === 0) fields.complain("command", "is missing");
      return { kind, command };
    }
    case "httpGet":
      return {
        kind,
        path: fields.text("path") ?? "/",
        port: parsePort(fields, ports),
        host: fields.text("host"),
        scheme: fields.oneOf("scheme", ["HTTP", "HTTPS"]) ?? "HTTP",
        headers: fields.objects("httpHeaders").map((header) => {
          const pair = [header.requiredText("name"), header.text("value") ?? ""] as const;
          header.finish();
          return pair;
        }),
      };
    case "tcpSocket":
      return { kind, port: parsePort(fields, ports), host: fields.text("host") };
  }
}

/** A number, or the name of one of the container's own ports. */
function parsePort(fields: FieldReader, ports: readonly ContainerPort[]): number {
  const value = fields.raw("port");
  const port = typeof value === "string" ? ports.find(({ name }) => name === value)?.port : value;
  if (typeof port === "number" && Number.isInteger(port) && port >= 1 && port <= 65_535) {
    return port;
  }
  const reason = typeof value === "string" ? `the container has no port "${value}"` : "no port";
  fields.complain("port", `expected a port: ${reason}`);
  return 0;
}
