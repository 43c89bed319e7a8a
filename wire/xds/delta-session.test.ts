import assert from "node:assert/strict";
import { beforeEach, describe, it } from "node:test";
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { status } from "@grpc/grpc-js";
import { DeltaDiscoveryRequestSchema } from "#wire/gen/discovery_pb.js";
import { type Catalog, DeltaSession } from "./delta-session.ts";
import { type EncodedResource, encodeResource } from "./resource.ts";
import { ADDRESS_TYPE, AUTHORIZATION_TYPE, type DiscoveryType } from "./type-urls.ts";

/** A catalog to change, and the one session that is told of it. */
class Control {
  readonly entries = {
    [ADDRESS_TYPE]: new Map<string, EncodedResource>(),
    [AUTHORIZATION_TYPE]: new Map<string, EncodedResource>(),
  } satisfies Catalog;
  readonly session = new DeltaSession(() => this.entries);

  /** Gives a name new content, or none. */
  set(typeUrl: DiscoveryType, name: string, content: string | undefined): void {
    const before = this.entries[typeUrl].get(name)?.version;
    if (content === undefined) this.entries[typeUrl].delete(name);
    else this.entries[typeUrl].set(name, encode(typeUrl, name, content));
    const none = new Map<string, string | undefined>();
    const change = { [ADDRESS_TYPE]: none, [AUTHORIZATION_TYPE]: none };
    this.session.changed({ ...change, [typeUrl]: new Map([[name, before]]) });
  }

  request(typeUrl: string, init: MessageInitShape<typeof DeltaDiscoveryRequestSchema> = {}) {
    const message = create(DeltaDiscoveryRequestSchema, { typeUrl, ...(init as object) });
    return this.session.accept(message);
  }

  /** What is sent next, in short: `Address +a -b`. */
  next(): string | undefined {
    const parts = this.session.next();
    if (!parts) return undefined;
    this.nonce = parts.nonce;
    const type = parts.typeUrl === ADDRESS_TYPE ? "Address" : "Authorization";
    const changed = parts.changed.map(({ name }) => ` +${name}`);
    return [type, ...changed, ...parts.removed.map((name) => ` -${name}`)].join("");
  }
  nonce = "";

  /** Everything that is sent until there is nothing more to say. */
  all(): string[] {
    const sent: string[] = [];
    for (let next = this.next(); next !== undefined; next = this.next()) sent.push(next);
    return sent;
  }
}

function encode(typeUrl: DiscoveryType, name: string, content: string): EncodedResource {
  return encodeResource(typeUrl, name, Buffer.from(content));
}

describe("DeltaSession", () => {
  let control: Control;
  const subscribe = () => {
    control.request(AUTHORIZATION_TYPE);
    control.request(ADDRESS_TYPE);
    return control.all();
  };
  beforeEach(() => {
    control = new Control();
  });

  it("is current once everything there is was answered, until there is more", () => {
    control.request(AUTHORIZATION_TYPE);
    control.request(ADDRESS_TYPE);
    assert.equal(control.session.isCurrent, false);
    const answerNext = (typeUrl: DiscoveryType) => {
      assert.notEqual(control.next(), undefined);
      assert.equal(control.session.isCurrent, false);
      control.request(typeUrl, { responseNonce: control.nonce });
    };
    answerNext(AUTHORIZATION_TYPE);
    answerNext(ADDRESS_TYPE);
    assert.equal(control.session.isCurrent, true);
    control.set(ADDRESS_TYPE, "a", "1");
    assert.equal(control.session.isCurrent, false);
    answerNext(ADDRESS_TYPE);
    assert.equal(control.session.isCurrent, true);
  });

  it("answers a subscription even where there is nothing to say", () => {
    assert.deepEqual(subscribe(), ["Authorization", "Address"]);
    assert.equal(control.next(), undefined);
  });

  it("sends each change once, and several changes of one thing as the last of them", () => {
    subscribe();
    control.set(ADDRESS_TYPE, "a", "1");
    control.set(ADDRESS_TYPE, "a", "2");
    assert.deepEqual(control.all(), ["Address +a"]);
  });

  it("sends nothing for a thing that came and went, or changed and changed back", () => {
    control.set(ADDRESS_TYPE, "a", "1");
    subscribe();
    control.set(ADDRESS_TYPE, "b", "1");
    control.set(ADDRESS_TYPE, "b", undefined);
    control.set(ADDRESS_TYPE, "a", "2");
    control.set(ADDRESS_TYPE, "a", "1");
    assert.deepEqual(control.all(), []);
  });

  it("names what was removed", () => {
    control.set(ADDRESS_TYPE, "a", "1");
    subscribe();
    control.set(ADDRESS_TYPE, "a", undefined);
    assert.deepEqual(control.all(), ["Address -a"]);
  });

  it("sends a removal and what follows it as a change, where both are still to be sent", () => {
    control.set(ADDRESS_TYPE, "a", "1");
    subscribe();
    control.set(ADDRESS_TYPE, "a", undefined);
    control.set(ADDRESS_TYPE, "a", "2");
    assert.deepEqual(control.all(), ["Address +a"]);
  });

  it("skips what a client that comes back has already, and removes what is gone", () => {
    control.set(ADDRESS_TYPE, "same", "1");
    control.set(ADDRESS_TYPE, "changed", "2");
    const initialResourceVersions = {
      same: encode(ADDRESS_TYPE, "same", "1").version,
      changed: encode(ADDRESS_TYPE, "changed", "1").version,
      gone: "abc",
    };
    control.request(AUTHORIZATION_TYPE);
    control.request(ADDRESS_TYPE, { initialResourceVersions });
    assert.deepEqual(control.all(), ["Authorization", "Address +changed -gone"]);
  });

  it("sends policies first, then addresses, then the removals of policies", () => {
    control.set(AUTHORIZATION_TYPE, "old", "1");
    subscribe();
    control.set(ADDRESS_TYPE, "a", "names new");
    control.set(AUTHORIZATION_TYPE, "old", undefined);
    control.set(AUTHORIZATION_TYPE, "new", "1");
    assert.deepEqual(control.all(), ["Authorization +new", "Address +a", "Authorization -old"]);
  });

  it("keeps that order for a client that comes back", () => {
    control.set(AUTHORIZATION_TYPE, "new", "1");
    control.set(ADDRESS_TYPE, "a", "names new");
    control.request(AUTHORIZATION_TYPE, { initialResourceVersions: { old: "abc" } });
    control.request(ADDRESS_TYPE);
    assert.deepEqual(control.all(), ["Authorization +new", "Address +a", "Authorization -old"]);
  });

  it("holds addresses back until policies are asked for, or nobody asks", () => {
    control.request(ADDRESS_TYPE);
    assert.equal(control.next(), undefined);
    assert.equal(control.session.holdsAddresses, true);
    control.request(AUTHORIZATION_TYPE);
    assert.deepEqual(control.all(), ["Authorization", "Address"]);

    control = new Control();
    control.request(ADDRESS_TYPE);
    control.session.releaseAddresses();
    assert.deepEqual(control.all(), ["Address"]);
  });

  it("reports a rejection, and does not send the rejected again before it changes", () => {
    control.set(ADDRESS_TYPE, "a", "bad");
    subscribe();
    const errorDetail = { code: 3, message: "a: no" };
    const rejected = control.request(ADDRESS_TYPE, { responseNonce: control.nonce, errorDetail });
    assert.deepEqual(rejected, { kind: "rejected", typeUrl: ADDRESS_TYPE, reason: "a: no" });
    assert.deepEqual(control.all(), []);
    control.set(ADDRESS_TYPE, "a", "good");
    assert.deepEqual(control.all(), ["Address +a"]);
  });

  it("ignores a nonce that is not, or no longer, waited for", () => {
    subscribe();
    const answer = { responseNonce: control.nonce };
    assert.equal(control.request(ADDRESS_TYPE, answer).kind, "acknowledged");
    assert.equal(control.request(ADDRESS_TYPE, answer).kind, "ignored");
    const stale = { responseNonce: "stale", errorDetail: { message: "old news" } };
    assert.equal(control.request(ADDRESS_TYPE, stale).kind, "ignored");
  });

  it("waits for answers when 16 are missing, and sends what came meanwhile as one", () => {
    subscribe();
    for (let round = 0; round < 30; round++) {
      control.set(ADDRESS_TYPE, `a${round}`, "1");
      control.next();
    }
    assert.equal(control.session.isStalled, true);
    assert.equal(control.next(), undefined);
    control.request(ADDRESS_TYPE, { responseNonce: control.nonce });
    assert.equal(control.session.isStalled, false);
    assert.equal(control.all()[0]?.split(" ").length, 1 + 30 - 15);
  });

  it("sends no address ahead of a policy that waits for answers", () => {
    subscribe();
    for (let round = 0; round < 30; round++) {
      control.set(AUTHORIZATION_TYPE, `p${round}`, "1");
      control.next();
    }
    control.set(ADDRESS_TYPE, "a", "names p29");
    assert.equal(control.next(), undefined);
  });

  it("stops sending a type that was unsubscribed", () => {
    subscribe();
    control.request(ADDRESS_TYPE, { resourceNamesUnsubscribe: ["*"] });
    control.set(ADDRESS_TYPE, "a", "1");
    assert.deepEqual(control.all(), []);
  });

  it("takes a star for everything", () => {
    control.set(AUTHORIZATION_TYPE, "p", "1");
    control.request(AUTHORIZATION_TYPE, { resourceNamesSubscribe: ["*"] });
    assert.deepEqual(control.all(), ["Authorization +p"]);
  });

  const refused: readonly (readonly [string, object, status, RegExp])[] = [
    ["istio.workload.Workload", {}, status.UNIMPLEMENTED, /subscribe to ".*Address" instead/],
    ["envoy.config.listener.v3.Listener", {}, status.UNIMPLEMENTED, /Cannot serve resources of/],
    [
      "istio.workload.Address",
      { resourceNamesSubscribe: ["n/h"] },
      status.INVALID_ARGUMENT,
      /on-dem/,
    ],
    [
      "istio.workload.Address",
      { resourceNamesSubscribe: ["*"], resourceNamesUnsubscribe: ["*"] },
      status.INVALID_ARGUMENT,
      /on-demand discovery is not supported/,
    ],
  ];
  for (const [type, init, code, reason] of refused) {
    it(`refuses ${type} with ${JSON.stringify(init)}`, () => {
      const outcome = control.request(`type.googleapis.com/${type}`, init);
      assert.ok(outcome.kind === "refused");
      assert.equal(outcome.code, code);
      assert.match(outcome.reason, reason);
    });
  }
});
