/**
 * What PeerAuthentications come to: deny policies against plaintext, as Istio converts them.
 *
 * The mesh's, the namespace's and the workload's own are laid over each other in that order; what
 * is unset lets the one below it through. At each level the oldest holds.
 *
 * @see https://istio.io/latest/docs/reference/config/security/peer_authentication/
 */
import { EMPTY_MATCH, type Match, type Policy } from "#core/policy/policy.ts";
import { type PolicyKey, policyKeyOf } from "#core/service/workload.ts";
import { selects } from "../resources/metadata.ts";
import type {
  Labels,
  MutualTlsMode,
  PeerAuthenticationObject,
  Placed,
} from "../resources/objects.ts";
import type { Problem } from "../source/problem.ts";
import { formatId } from "../source/source.ts";

type PlacedAuthentication = Placed<PeerAuthenticationObject>;

const STATIC_STRICT = "istio_converted_static_strict";

const WITHOUT_IDENTITY: Match = { ...EMPTY_MATCH, notPrincipals: [{ kind: "presence" }] };

/** The PeerAuthentications of the mesh, each where it belongs. */
export class PeerAuthentications {
  readonly policies: readonly Policy[];
  readonly problems: readonly Problem[];
  readonly #rootNamespace: string;
  readonly #meshWide: PlacedAuthentication | undefined;
  readonly #byNamespace = new Map<string, PlacedAuthentication>();
  readonly #bySelector = new Map<string, PlacedAuthentication[]>();
  readonly #failingClosed: PlacedAuthentication[] = [];
  readonly #problems: Problem[] = [];

  constructor(objects: Iterable<PlacedAuthentication>, rootNamespace: string) {
    this.#rootNamespace = rootNamespace;
    const sorted = [...objects].sort((a, b) => compareAge(a.object, b.object));
    for (const item of sorted) this.#sort(item);
    this.#meshWide = this.#byNamespace.get(rootNamespace);
    this.policies = sorted.length === 0 ? [] : [this.#staticStrict(), ...this.#converted()];
    this.problems = this.#problems;
  }

  /** Keys of the policies that hold for a workload, because of PeerAuthentications. */
  policiesFor(namespace: string, labels: Labels): readonly PolicyKey[] {
    const own = this.#bySelector
      .get(namespace)
      ?.find(({ object }) => object.selector && selects(object.selector, labels));
    const isStrict = own
      ? this.#modeOf(own.object) === "strict" && exceptionsOf(own.object).length === 0
      : this.#inherited(namespace) === "strict";
    const failsClosed = this.#failingClosed.some(({ object }) =>
      this.#isAbout(object, namespace, labels),
    );
    const converted = own && this.#convert(own.object);
    return [
      ...(isStrict || failsClosed ? [policyKeyOf(this.#rootNamespace, STATIC_STRICT)] : []),
      ...(converted ? [converted.key] : []),
    ];
  }

  #sort(item: PlacedAuthentication): void {
    const { object } = item;
    if (object.failsClosed) {
      this.#failingClosed.push(item);
    } else if (object.selector === undefined) {
      const first = this.#byNamespace.get(object.namespace);
      if (first) this.#problems.push(this.#rivalProblem(item, first));
      else this.#byNamespace.set(object.namespace, item);
    } else if (object.namespace !== this.#rootNamespace) {
      const others = this.#bySelector.get(object.namespace) ?? [];
      this.#bySelector.set(object.namespace, [...others, item]);
    }
  }

  #isAbout(object: PeerAuthenticationObject, namespace: string, labels: Labels): boolean {
    const isRoot = object.namespace === this.#rootNamespace;
    if (object.selector === undefined) return isRoot || object.namespace === namespace;
    return !isRoot && object.namespace === namespace && selects(object.selector, labels);
  }

  #inherited(namespace: string): MutualTlsMode {
    const own = this.#byNamespace.get(namespace)?.object.mode ?? "unset";
    return own === "unset" ? (this.#meshWide?.object.mode ?? "unset") : own;
  }

  #modeOf(object: PeerAuthenticationObject): MutualTlsMode {
    return object.mode === "unset" ? this.#inherited(object.namespace) : object.mode;
  }

  #staticStrict(): Policy {
    return denyPolicy(this.#rootNamespace, STATIC_STRICT, WITHOUT_IDENTITY);
  }

  #converted(): readonly Policy[] {
    const selecting = [...this.#bySelector.values()].flat();
    return selecting
      .map(({ object }) => this.#convert(object))
      .filter((policy) => policy !== undefined);
  }

  /** @returns undefined where the mode is the same for every port */
  #convert(object: PeerAuthenticationObject): Policy | undefined {
    const name = `converted_peer_authentication_${object.name}`;
    if (this.#modeOf(object) === "strict") {
      const notDestinationPorts = exceptionsOf(object);
      if (notDestinationPorts.length === 0) return undefined;
      return denyPolicy(object.namespace, name, { ...WITHOUT_IDENTITY, notDestinationPorts });
    }
    const destinationPorts = portsOf(object, "strict");
    if (destinationPorts.length === 0) return undefined;
    return denyPolicy(object.namespace, name, { ...WITHOUT_IDENTITY, destinationPorts });
  }

  #rivalProblem(item: PlacedAuthentication, first: PlacedAuthentication): Problem {
    const level = item.object.namespace === this.#rootNamespace ? "mesh" : "namespace";
    const other = formatId({ group: "", ...first.object });
    return {
      origin: item.origin,
      object: formatId({ group: "", ...item.object }),
      field: undefined,
      reason: `${other} holds for the whole ${level} already; this one has no effect`,
      effect: "ignored",
    };
  }
}

/** Ports where a strict object lets plaintext in. */
function exceptionsOf(object: PeerAuthenticationObject): readonly number[] {
  return portsOf(object, "permissive");
}

function portsOf(object: PeerAuthenticationObject, wanted: MutualTlsMode): readonly number[] {
  return [...object.portModes].filter(([, mode]) => mode === wanted).map(([port]) => port);
}

function denyPolicy(namespace: string, name: string, match: Match): Policy {
  return {
    key: policyKeyOf(namespace, name),
    name,
    namespace,
    scope: "workload",
    action: "deny",
    dryRun: false,
    rules: [[[match]]],
  };
}

/** An object from a file has no age and counts as young; names settle the rest. */
function compareAge(a: PeerAuthenticationObject, b: PeerAuthenticationObject): number {
  const ageA = a.createdAtMs ?? Number.POSITIVE_INFINITY;
  const ageB = b.createdAtMs ?? Number.POSITIVE_INFINITY;
  if (ageA !== ageB) return ageA < ageB ? -1 : 1;
  return a.name < b.name ? -1 : Number(a.name > b.name);
}
