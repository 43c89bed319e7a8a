import type { ObjectId } from "../source/source.ts";
import type { Field } from "./field.ts";
import type { Labels, Metadata } from "./objects.ts";

/** The name and namespace were read before: they are what the object is known by. */
export function readMetadata(root: Field, { name, namespace }: ObjectId): Metadata {
  const metadata = root.get("metadata");
  return {
    name,
    namespace,
    labels: metadata.get("labels").strings(),
    annotations: metadata.get("annotations").strings(),
    createdAtMs: metadata.get("creationTimestamp").parsed(parseTimeMs),
  };
}

/**
 * The labels of `selector.matchLabels`.
 *
 * @returns undefined where there are none, which selects everything
 */
export function readSelector(selector: Field): Labels | undefined {
  const matchLabels = selector.only(["matchLabels"]).get("matchLabels");
  for (const [name, field] of matchLabels.entries()) {
    if (name === "") field.complain("a label has to have a name");
    if (`${name}${field.value}`.includes("*")) {
      field.complain('a label is compared as it stands, "*" does not stand for others');
    }
  }
  const labels = matchLabels.strings();
  return labels.size === 0 ? undefined : labels;
}

/** Whether `labels` has all of `selector`. */
export function selects(selector: Labels, labels: Labels): boolean {
  for (const [name, value] of selector) {
    if (labels.get(name) !== value) return false;
  }
  return true;
}

/** RFC 3339, as Kubernetes writes moments. */
function parseTimeMs(text: string): number {
  const ms = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d/.test(text) ? Date.parse(text) : Number.NaN;
  if (Number.isNaN(ms)) throw new SyntaxError(`expected a time such as "2026-11-21T10:00:00Z"`);
  return ms;
}
