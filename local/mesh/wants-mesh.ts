import { DATAPLANE_MODE } from "../object/parse.ts";

type Labels = Readonly<Record<string, string>>;

/**
 * Whether a pod belongs in the mesh: its own label decides, or else that of its namespace.
 *
 * @see https://istio.io/latest/docs/ambient/usage/add-workloads/
 */
export function wantsMesh(namespace: Labels, pod: Labels): boolean {
  return (pod[DATAPLANE_MODE] ?? namespace[DATAPLANE_MODE]) === "ambient";
}
