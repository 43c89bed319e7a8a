/** Tells all what the runtime knows: control its objects, nodes their rules, DNS its names. */
import type { IpAddress } from "#core/ip.ts";
import type { Cluster } from "./cluster.ts";
import { zoneOf } from "./dns/zone.ts";
import { type ObjectFiles, objectFiles } from "./mesh/manifests.ts";
import type { ObjectFolder } from "./mesh/object-folder.ts";
import { applyRuleset } from "./network/ip.ts";
import { rulesetOf } from "./network/nftables.ts";
import { nameOf, type ServiceObject } from "./object/object.ts";
import type { Objects } from "./object/store.ts";
import { type Backend, backendsOf, slicesOf } from "./plan/endpoints.ts";
import type { PodLoop } from "./pod/pod-loop.ts";

export interface World {
  readonly objects: Objects;
  readonly namespaces: Iterable<string>;
  readonly services: readonly ServiceObject[];
  readonly addresses: ReadonlyMap<string, readonly IpAddress[]>;
  readonly pods: readonly PodLoop[];
}

export class Publisher {
  readonly #cluster: Cluster;
  readonly #folder: ObjectFolder;
  #files: ObjectFiles = new Map();
  #ruleset = "";
  #zone = "";

  constructor(cluster: Cluster, folder: ObjectFolder) {
    this.#cluster = cluster;
    this.#folder = folder;
  }

  /** What the control server was given last. */
  get files(): ObjectFiles {
    return this.#files;
  }

  /** Not to be called while a call is under way. */
  async publish(world: World): Promise<void> {
    const pods = world.pods.filter((pod) => pod.view !== undefined);
    const views = pods.flatMap(({ view }) => (view === undefined ? [] : [view]));
    const services = world.services.flatMap((service) => {
      const addresses = world.addresses.get(nameOf(service)) ?? [];
      const isRefused = service.addressing.kind === "virtual" && addresses.length === 0;
      return isRefused ? [] : [{ service, addresses }];
    });
    const backends = services.flatMap(({ service, addresses }) => {
      return backendsOf(service, addresses, views);
    });
    this.#files = objectFiles({
      objects: world.objects,
      namespaces: world.namespaces,
      services,
      pods,
      slices: services.flatMap(({ service }) => slicesOf(service, views)),
    });
    const zone = zoneOf(services, views);
    if (JSON.stringify(zone) !== this.#zone) this.#cluster.setZone(zone);
    this.#zone = JSON.stringify(zone);
    await Promise.all([
      this.#folder.write(this.#files),
      this.#applyRules(
        backends,
        views.flatMap(({ addresses }) => Object.values(addresses)),
      ),
    ]);
  }

  async #applyRules(backends: readonly Backend[], pods: readonly IpAddress[]): Promise<void> {
    const ruleset = rulesetOf(backends, pods);
    if (ruleset === this.#ruleset) return;
    await Promise.all(this.#cluster.nodes.map(({ netns }) => applyRuleset(netns, ruleset)));
    this.#ruleset = ruleset;
  }
}
