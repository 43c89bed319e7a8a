import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { create, fromBinary, type MessageInitShape } from "@bufbuild/protobuf";
import { EMPTY_MATCH, type Policy } from "#core/policy/policy.ts";
import type { Workload } from "#core/service/workload.ts";
import { DeltaDiscoveryResponseSchema } from "#wire/gen/discovery_pb.js";
import { policy, service, workload } from "../../test/support/mesh-builders.ts";
import { encodeAuthorization, encodeServiceAddress, encodeWorkloadAddress } from "./encode.ts";
import { ReceivedState } from "./received-state.ts";
import { encodeResource, joinResponse } from "./resource.ts";
import { ADDRESS_TYPE, AUTHORIZATION_TYPE, type DiscoveryType } from "./type-urls.ts";

const encoded = {
  workload: (one: Workload, name: string = one.uid) =>
    encodeResource(ADDRESS_TYPE, name, encodeWorkloadAddress(one)),
  service: (name: string) => {
    const one = service(name, "10.96.0.1");
    return encodeResource(ADDRESS_TYPE, one.key, encodeServiceAddress(one));
  },
  policy: (one: Policy) => encodeResource(AUTHORIZATION_TYPE, one.key, encodeAuthorization(one)),
  noise: (typeUrl: DiscoveryType, name: string) =>
    encodeResource(typeUrl, name, Uint8Array.of(0xff)),
};
type Encoded = ReturnType<typeof encodeResource>;

function response(typeUrl: DiscoveryType, changed: readonly Encoded[], removed: string[] = []) {
  const bytes = joinResponse({ typeUrl, nonce: "1", changed, removed });
  return fromBinary(DeltaDiscoveryResponseSchema, bytes);
}

const cart = workload({ name: "cart" });
const web = workload({ name: "web" });

/** A policy that decodes, but for its port. */
function badPolicy(name: string, action: "allow" | "deny"): Policy {
  return policy(name, { action, rules: [[[{ ...EMPTY_MATCH, destinationPorts: [65_536] }]]] });
}
describe("ReceivedState", () => {
  it("applies the good resources of a response and names the bad ones", async () => {
    const state = new ReceivedState();
    const changed = [
      encoded.workload(cart),
      encoded.noise(ADDRESS_TYPE, "x"),
      encoded.service("web"),
    ];
    const { update, rejections } = await state.apply(response(ADDRESS_TYPE, changed));
    assert.deepEqual(update.workloads.changed, [cart]);
    assert.deepEqual(
      update.services.changed.map(({ name }) => name),
      ["web"],
    );
    assert.equal(rejections.length, 1);
    assert.match(
      rejections[0]?.reason ?? "",
      /Cannot read address "x": message is not well-formed/,
    );
    assert.deepEqual(Object.keys(state.initialVersions(ADDRESS_TYPE)), [
      cart.uid,
      "default/web.default.svc.cluster.local",
    ]);
  });

  it("keeps the last good version of what is rejected later", async () => {
    const state = new ReceivedState();
    const good = encoded.workload(cart);
    await state.apply(response(ADDRESS_TYPE, [good]));
    const { update } = await state.apply(
      response(ADDRESS_TYPE, [encoded.noise(ADDRESS_TYPE, cart.uid)]),
    );
    assert.deepEqual(update.workloads, { changed: [], removed: [] });
    assert.deepEqual(state.initialVersions(ADDRESS_TYPE), { [cart.uid]: good.version });
  });

  it("knows of a removed name whether it was a workload or a service", async () => {
    const state = new ReceivedState();
    const api = encoded.service("api");
    await state.apply(response(ADDRESS_TYPE, [encoded.workload(cart), api]));
    const { update } = await state.apply(response(ADDRESS_TYPE, [], [api.name, cart.uid, "never"]));
    assert.deepEqual(update.workloads.removed, [cart.uid]);
    assert.deepEqual(update.services.removed, [api.name]);
    assert.deepEqual(state.initialVersions(ADDRESS_TYPE), {});
  });

  it("takes the later of two resources with one name", async () => {
    const newer = workload({ name: "cart", node: "n2" });
    const changed = [encoded.workload(cart), encoded.workload(newer)];
    const { update } = await new ReceivedState().apply(response(ADDRESS_TYPE, changed));
    assert.deepEqual(update.workloads.changed, [newer]);
  });

  it("rejects a resource that calls itself otherwise than its name", async () => {
    const changed = [encoded.workload(cart, web.uid)];
    const { rejections } = await new ReceivedState().apply(response(ADDRESS_TYPE, changed));
    assert.match(rejections[0]?.reason ?? "", /calls itself "Kubernetes\/\/Pod\/default\/cart"/);
  });

  it("rejects a resource of another type than its response, and one without content", async () => {
    const other = encoded.policy(policy("p"));
    const init: MessageInitShape<typeof DeltaDiscoveryResponseSchema> = {
      typeUrl: ADDRESS_TYPE,
      resources: [...response(ADDRESS_TYPE, [other]).resources, { name: "empty" }],
    };
    const message = create(DeltaDiscoveryResponseSchema, init);
    const { rejections } = await new ReceivedState().apply(message);
    assert.deepEqual(
      rejections.map(({ name }) => name),
      ["default/p", "empty"],
    );
  });

  it("rejects a response of a type that was not asked for", async () => {
    const message = create(DeltaDiscoveryResponseSchema, { typeUrl: "x" });
    const { rejections } = await new ReceivedState().apply(message);
    assert.equal(rejections[0]?.typeUrl, "x");
  });

  it("puts a policy that fails closed where one was not understood", async () => {
    const state = new ReceivedState();
    const changed = [
      encoded.policy(badPolicy("d", "deny")),
      encoded.policy(badPolicy("a", "allow")),
    ];
    const { update, rejections } = await state.apply(response(AUTHORIZATION_TYPE, changed));
    assert.equal(rejections.length, 2);
    assert.deepEqual(
      update.policies.changed.map(({ name, action, rules }) => [name, action, rules]),
      [
        ["d", "deny", [[]]],
        ["a", "allow", []],
      ],
    );
    // So that the server sends them again, and also says when they are gone.
    const versions = { "default/d": "refused", "default/a": "refused" };
    assert.deepEqual(state.initialVersions(AUTHORIZATION_TYPE), versions);
    const removal = await state.apply(response(AUTHORIZATION_TYPE, [], ["default/d"]));
    assert.deepEqual(removal.update.policies.removed, ["default/d"]);
  });

  it("keeps the last good version of a policy rather than a stand-in", async () => {
    const state = new ReceivedState();
    const good = encoded.policy(policy("d"));
    await state.apply(response(AUTHORIZATION_TYPE, [good]));
    const changed = [encoded.policy(badPolicy("d", "deny"))];
    const { update } = await state.apply(response(AUTHORIZATION_TYPE, changed));
    assert.deepEqual(update.policies.changed, []);
    assert.deepEqual(state.initialVersions(AUTHORIZATION_TYPE), { "default/d": good.version });
  });

  it("lets other work run while it decodes a large response", async () => {
    const changed = Array.from({ length: 5_000 }, (_, index) =>
      encoded.workload(workload({ name: `w${index}` })),
    );
    const message = response(ADDRESS_TYPE, changed);
    let turns = 0;
    const counting = setInterval(() => turns++, 1);
    const { update } = await new ReceivedState().apply(message);
    clearInterval(counting);
    assert.equal(update.workloads.changed.length, 5_000);
    assert.ok(turns >= 1, "nothing else had a turn");
  });
});
