/**
 * What an object means to the mesh, or why it means nothing.
 *
 * @see docs/decisions/0009-objects-that-cannot-be-understood.md for what is in force in their place
 */
import type { RawObject } from "../source/source.ts";
import { interpretAuthorizationPolicy } from "./authorization-policy.ts";
import { interpretEndpointSlice } from "./endpoint-slice.ts";
import { Field, type Mistake } from "./field.ts";
import { type ServedKind, standingOf } from "./kinds.ts";
import { readMetadata } from "./metadata.ts";
import { interpretNode } from "./node.ts";
import type { MeshObject } from "./objects.ts";
import { interpretPeerAuthentication } from "./peer-authentication.ts";
import { interpretPod } from "./pod.ts";
import type { InterpretSettings, Reading } from "./reading.ts";
import { interpretService } from "./service.ts";

export type Interpretation =
  | {
      readonly kind: "understood";
      readonly object: MeshObject;
      /** What of it is not in force, though the rest is. */
      readonly remarks: readonly Mistake[];
    }
  | {
      readonly kind: "refused";
      /** At least one. */
      readonly mistakes: readonly Mistake[];
      /** What is in force where there is no earlier version: undefined for nothing. */
      readonly substitute: MeshObject | undefined;
    };

/** Never throws because of what the object holds. */
export function interpret(raw: RawObject, settings: InterpretSettings): Interpretation {
  const standing = standingOf(raw.apiVersion, raw.id.kind);
  switch (standing.kind) {
    case "served":
      return interpretServed(standing.served, raw, settings);
    case "later":
      return refuse([{ path: ["kind"], reason: `${raw.id.kind} is not served by this release` }]);
    case "unknown":
      return refuse([{ path: ["apiVersion"], reason: standing.reason }]);
    case "ignored":
      return refuse([{ path: ["kind"], reason: `${raw.id.kind} is not for the mesh` }]);
  }
}

function interpretServed(
  kind: ServedKind,
  raw: RawObject,
  settings: InterpretSettings,
): Interpretation {
  const mistakes: Mistake[] = [];
  const root = new Field(raw.value, [], mistakes);
  const metadata = readMetadata(root, raw.id);
  const reading: Reading = { root, metadata, mistakes, remarks: [], settings };
  remarkWaypoint(reading);
  switch (kind) {
    case "Namespace":
      return conclude(reading, { kind, ...metadata });
    case "ServiceAccount":
      return conclude(reading, { kind, ...metadata });
    case "Node":
      return conclude(reading, interpretNode(reading));
    case "Pod":
      return conclude(reading, interpretPod(reading));
    case "Service":
      return conclude(reading, interpretService(reading));
    case "EndpointSlice":
      return conclude(reading, interpretEndpointSlice(reading));
    case "AuthorizationPolicy": {
      const { object, substitute } = interpretAuthorizationPolicy(reading);
      return conclude(reading, object, substitute);
    }
    case "PeerAuthentication": {
      const { object, substitute } = interpretPeerAuthentication(reading);
      return conclude(reading, object, substitute);
    }
  }
}

/** Whoever asks for a waypoint expects its policies to be enforced. */
function remarkWaypoint({ metadata, remarks }: Reading): void {
  const label = "istio.io/use-waypoint";
  const waypoint = metadata.labels.get(label);
  if (waypoint === undefined || waypoint === "none") return;
  const consequence = `traffic does not pass ${JSON.stringify(waypoint)}`;
  const reason = `waypoints are not served by this release; ${consequence}`;
  remarks.push({ path: ["metadata", "labels", label], reason });
}

function conclude(reading: Reading, object: MeshObject, substitute?: MeshObject): Interpretation {
  return reading.mistakes.length > 0
    ? { kind: "refused", mistakes: reading.mistakes, substitute }
    : { kind: "understood", object, remarks: reading.remarks };
}

function refuse(mistakes: readonly Mistake[]): Interpretation {
  return { kind: "refused", mistakes, substitute: undefined };
}
