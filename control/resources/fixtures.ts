/** Objects for tests, written as people write them. */
import { parseFile } from "../source/directory/parse.ts";
import type { RawObject } from "../source/source.ts";
import { type Interpretation, interpret } from "./interpret.ts";
import { isNamespaced, splitApiVersion } from "./kinds.ts";
import type { MeshObject } from "./objects.ts";

export const ROOT_NAMESPACE = "istio-system";

/** The objects of a text. @throws where something of it is none */
export function rawObjectsForTest(text: string, file = "test.yaml"): readonly RawObject[] {
  const { objects, faults } = parseFile(file, text);
  const [fault] = faults;
  if (fault) throw new Error(`line ${fault.line}: ${fault.field}: ${fault.reason}`);
  return objects;
}

/** The only object of a text. */
export function rawObjectForTest(text: string, file?: string): RawObject {
  const [object, second] = rawObjectsForTest(text, file);
  if (!object || second) throw new Error("expected one object");
  return object;
}

/** The object of a JSON text, without places; faster than reading it as YAML. */
export function rawObjectFromJson(text: string): RawObject {
  const value: unknown = JSON.parse(text);
  // Written by the test itself.
  const { apiVersion, kind, metadata } = value as {
    readonly apiVersion: string;
    readonly kind: string;
    readonly metadata: { readonly name: string; readonly namespace?: string };
  };
  const id = {
    group: splitApiVersion(apiVersion).group,
    kind,
    namespace: isNamespaced(kind) ? (metadata.namespace ?? "default") : "",
    name: metadata.name,
  };
  return { id, apiVersion, value, origin: { file: "test.json", line: 1 }, lineOf: () => 1 };
}

export function interpretForTest(text: string, read = rawObjectForTest): Interpretation {
  return interpret(read(text), { rootNamespace: ROOT_NAMESPACE });
}

/** The object, which has to be of that kind and without mistakes. */
export function understoodForTest<Kind extends MeshObject["kind"]>(
  kind: Kind,
  text: string,
): Extract<MeshObject, { kind: Kind }> {
  const interpretation = interpretForTest(text);
  if (interpretation.kind === "refused") {
    throw new Error(JSON.stringify(interpretation.mistakes));
  }
  const { object } = interpretation;
  if (object.kind !== kind) throw new Error(`expected ${kind}, got ${object.kind}`);
  // Just compared; the compiler does not follow that through the type parameter.
  return object as Extract<MeshObject, { kind: Kind }>;
}

/** `path: reason`, for every mistake or remark. */
export function complaintsForTest(text: string): readonly string[] {
  const interpretation = interpretForTest(text);
  const list = interpretation.kind === "refused" ? interpretation.mistakes : interpretation.remarks;
  return list.map(({ path, reason }) => `${path.join(".")}: ${reason}`);
}
