/** What the agent is told of a pod's probes, and of what the pod may send. */
import type { ContainerSpec } from "../object/object.ts";

/** `report` or `enforce`; absent for pods that may send what they like. */
export const STRICT_EGRESS = "aquifer.mesh/strict-egress";

type Probed = Pick<ContainerSpec, "startup" | "readiness" | "liveness">;

/** The ports at which the node's prober connects to the pod itself. */
export function probePorts(containers: readonly Probed[]): readonly number[] {
  const ports = containers.flatMap(({ startup, readiness, liveness }) =>
    [startup, readiness, liveness].flatMap((probe) => {
      const handler = probe?.handler;
      if (handler === undefined || handler.kind === "exec") return [];
      return handler.host === undefined ? [handler.port] : [];
    }),
  );
  return [...new Set(ports)].toSorted((left, right) => left - right);
}

export function strictEgress(annotations: Readonly<Record<string, string>>, cgroup: string) {
  const mode = annotations[STRICT_EGRESS];
  return mode === undefined ? {} : { strictEgress: { mode, cgroup } };
}
