import { type IpAddress, parseIp } from "#core/ip.ts";
import type { Field } from "./field.ts";
import type { EndpointSliceObject, SliceEndpoint } from "./objects.ts";
import type { Reading } from "./reading.ts";

/** @see https://kubernetes.io/docs/reference/kubernetes-api/service-resources/endpoint-slice-v1/ */
export function interpretEndpointSlice({ root, metadata, remarks }: Reading): EndpointSliceObject {
  root.only(["apiVersion", "kind", "metadata", "addressType", "endpoints", "ports"], remarks);
  const type = root.get("addressType").required().oneOf(["IPv4", "IPv6", "FQDN"]);
  return {
    kind: "EndpointSlice",
    ...metadata,
    service: metadata.labels.get("kubernetes.io/service-name") ?? "",
    ports: readPorts(root.get("ports")),
    // Names are for clients to resolve; the mesh routes by address.
    endpoints: type === "FQDN" ? [] : root.get("endpoints").items().map(readEndpoint),
  };
}

function readPorts(ports: Field): ReadonlyMap<string, number> {
  const read = new Map<string, number>();
  for (const item of ports.items()) {
    const name = item.get("name").string() ?? "";
    const protocol = item.get("protocol").oneOf(["TCP", "UDP", "SCTP"]) ?? "TCP";
    const port = item.get("port").integer(1, 65_535);
    if (protocol === "TCP" && port !== undefined) read.set(name, port);
  }
  return read;
}

function readEndpoint(item: Field): SliceEndpoint {
  const addresses = item
    .get("addresses")
    .required()
    .items()
    .map((address) => address.parsed(parseIp))
    .filter((address): address is IpAddress => address !== undefined);
  const target = item.get("targetRef");
  return {
    addresses,
    // Absent means unknown, which counts as ready.
    isReady: item.get("conditions").get("ready").boolean() ?? true,
    node: item.get("nodeName").string() ?? "",
    pod: target.get("kind").value === "Pod" ? target.get("name").string() : undefined,
    zone: item.get("zone").string() ?? "",
  };
}
