import type { NodeObject } from "./objects.ts";
import type { Reading } from "./reading.ts";

/** Only where the node is; of its pods each says itself on which node it runs. */
export function interpretNode({ metadata }: Reading): NodeObject {
  const label = (name: string) => metadata.labels.get(name) ?? "";
  return {
    kind: "Node",
    ...metadata,
    locality: {
      region: label("topology.kubernetes.io/region"),
      zone: label("topology.kubernetes.io/zone"),
      subzone: label("topology.istio.io/subzone"),
    },
  };
}
