import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { EMPTY_SNAPSHOT, type Snapshot } from "#core/snapshot.ts";
import { ADDRESS_TYPE, AUTHORIZATION_TYPE } from "#wire/xds/type-urls.ts";
import { policy, service, workload } from "../../test/support/mesh-builders.ts";
import { type CatalogEvent, SnapshotCatalog } from "./catalog.ts";

const cart = workload({ name: "cart" });
const web = service("web", "10.96.0.1");
const deny = policy("deny");

function snapshotOf(...things: readonly (typeof cart | typeof web | typeof deny)[]): Snapshot {
  return {
    workloads: new Map(things.flatMap((one) => ("uid" in one ? [[one.uid, one]] : []))),
    services: new Map(
      things.flatMap((one) => ("hostname" in one && "key" in one ? [[one.key, one]] : [])),
    ),
    policies: new Map(things.flatMap((one) => ("rules" in one ? [[one.key, one]] : []))),
  };
}

describe("SnapshotCatalog", () => {
  const start = (snapshot: Snapshot = EMPTY_SNAPSHOT) => {
    const events: CatalogEvent[] = [];
    const catalog = new SnapshotCatalog((event) => events.push(event));
    catalog.update(snapshot);
    return { catalog, events };
  };

  it("holds workloads and services as addresses, and policies apart", () => {
    const { catalog } = start(snapshotOf(cart, web, deny));
    assert.deepEqual([...catalog.catalog[ADDRESS_TYPE].keys()], [cart.uid, web.key]);
    assert.deepEqual([...catalog.catalog[AUTHORIZATION_TYPE].keys()], [deny.key]);
  });

  it("names what changed by its earlier version, and nothing else", () => {
    const { catalog } = start(snapshotOf(cart, web, deny));
    const versionOf = (name: string) => catalog.catalog[ADDRESS_TYPE].get(name)?.version;
    const before = versionOf(cart.uid);
    const change = catalog.update(snapshotOf({ ...cart, node: "n9" }, deny));
    assert.deepEqual([...change[ADDRESS_TYPE].keys()].toSorted(), [cart.uid, web.key].toSorted());
    assert.equal(change[ADDRESS_TYPE].get(cart.uid), before);
    assert.notEqual(versionOf(cart.uid), before);
    assert.equal(versionOf(web.key), undefined);
    assert.equal(change[AUTHORIZATION_TYPE].size, 0);
  });

  it("does not take a thing for changed that is another object with the same content", () => {
    const { catalog } = start(snapshotOf(cart));
    const entry = catalog.catalog[ADDRESS_TYPE].get(cart.uid);
    assert.equal(catalog.update(snapshotOf({ ...cart }))[ADDRESS_TYPE].size, 0);
    assert.equal(catalog.catalog[ADDRESS_TYPE].get(cart.uid), entry);
  });

  it("gives the same version to the same content after a restart", () => {
    const versions = [start(snapshotOf(cart)), start(snapshotOf({ ...cart }))].map(
      ({ catalog }) => catalog.catalog[ADDRESS_TYPE].get(cart.uid)?.version,
    );
    assert.match(versions[0] ?? "", /^[0-9a-f]{16}$/);
    assert.equal(versions[0], versions[1]);
  });

  it("keeps what it had of a thing that cannot be encoded, and everything else", () => {
    const { catalog, events } = start(snapshotOf(cart));
    const broken = { ...cart, capacity: Number.NaN };
    const change = catalog.update(snapshotOf(broken, web));
    assert.deepEqual([...change[ADDRESS_TYPE].keys()], [web.key]);
    assert.ok(catalog.catalog[ADDRESS_TYPE].has(cart.uid));
    assert.deepEqual(
      events.map(({ name }) => name),
      [cart.uid],
    );
  });
});
