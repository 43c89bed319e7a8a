import { MeshError } from "#core/errors.ts";
import { nameOfObject } from "../object/object.ts";
import type { PodLoop } from "../pod/pod-loop.ts";

export interface ContainerReference {
  readonly namespace: string;
  /** The pod's name, or `deploy/NAME` for any pod of a Deployment. */
  readonly pod: string;
  /** undefined for the first. */
  readonly container?: string | undefined;
}

/** @throws MeshError `REQUEST_REFUSED`, with what there is instead */
export function findContainer(
  pods: readonly PodLoop[],
  { namespace, pod: wanted, container }: ContainerReference,
): { readonly pod: PodLoop; readonly container: string } {
  const refuse = (reason: string): never => {
    throw new MeshError("REQUEST_REFUSED", `Cannot find pod "${namespace}/${wanted}": ${reason}`);
  };
  const here = pods.filter(({ options }) => options.pod.namespace === namespace);
  const found = here.filter((pod) => isMeant(pod, namespace, wanted));
  // One that is ready before one that is not; one that stays before one that goes.
  const [pod] = found.toSorted((a, b) => rank(b) - rank(a));
  if (pod === undefined) {
    const others = here.map(({ options }) => options.pod.name).join(", ");
    return refuse(others === "" ? "the namespace has no pods" : `there are ${others}`);
  }
  const names = pod.containers.map(({ name }) => name);
  const name = container ?? names[0] ?? "";
  if (!names.includes(name)) refuse(`it has no container "${name}", but ${names.join(", ")}`);
  return { pod, container: name };
}

function isMeant({ options }: PodLoop, namespace: string, wanted: string): boolean {
  const [, deployment] = /^(?:deploy|deployment)\/(.+)$/.exec(wanted) ?? [];
  if (deployment === undefined) return options.pod.name === wanted;
  return options.pod.owner?.deployment === nameOfObject("Deployment", namespace, deployment);
}

function rank({ ready, terminating }: PodLoop): number {
  return Number(ready) + 2 * Number(!terminating);
}
