import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { type DecodedPacket, decode, encode, type RecordType } from "dns-packet";
import { podAddress, serviceAddress } from "../addresses.ts";
import type { ServiceObject } from "../object/object.ts";
import type { PodView } from "../plan/endpoints.ts";
import { answer } from "./answer.ts";
import { zoneOf } from "./zone.ts";

function service(name: string, addressing: ServiceObject["addressing"]): ServiceObject {
  return {
    kind: "Service",
    metadata: { namespace: "shop", name, labels: {}, annotations: {} },
    selector: { app: "web" },
    ports: [],
    addressing,
    families: ["IPv4", "IPv6"],
    publishNotReady: false,
    affinity: false,
    raw: {},
  };
}

const POD: PodView = {
  uid: "uid",
  namespace: "shop",
  name: "web-1",
  node: "n1",
  hostname: undefined,
  labels: { app: "web" },
  addresses: podAddress(1, 2),
  ports: [],
  ready: true,
  terminating: false,
};

const ZONE = zoneOf(
  [
    {
      service: service("web", { kind: "virtual", requested: [] }),
      addresses: Object.values(serviceAddress(11)),
    },
    { service: service("each", { kind: "headless" }), addresses: [] },
    { service: service("away", { kind: "external", hostname: "example.org" }), addresses: [] },
    {
      service: service("near", { kind: "external", hostname: "web.shop.svc.cluster.local" }),
      addresses: [],
    },
  ],
  [POD, { ...POD, addresses: podAddress(1, 3) }, { ...POD, ready: false }],
);

function ask(name: string, type: RecordType = "A", flags = 0): DecodedPacket {
  const query = decode(encode({ type: "query", id: 7, flags, questions: [{ type, name }] }));
  return decode(encode(answer(ZONE, query, 0)));
}

const data = ({ answers = [] }: DecodedPacket) => {
  return answers.map((each) => ("data" in each ? each.data : undefined));
};
const rcode = (packet: DecodedPacket) => (packet.flags ?? 0) & 0xf;

describe("answer()", () => {
  it("knows a service's addresses of both families, in any case", () => {
    assert.deepEqual(data(ask("web.shop.svc.cluster.local")), ["10.96.0.11"]);
    assert.deepEqual(data(ask("Web.Shop.svc.Cluster.local", "AAAA")), ["fd96::b"]);
  });

  it("knows the pods of a headless service, together and each", () => {
    assert.deepEqual(data(ask("each.shop.svc.cluster.local")), ["10.244.1.2", "10.244.1.3"]);
    assert.deepEqual(data(ask("10-244-1-3.each.shop.svc.cluster.local")), ["10.244.1.3"]);
  });

  it("puts another address first each time", () => {
    const query = decode(
      encode({ type: "query", questions: [{ type: "A", name: "each.shop.svc.cluster.local" }] }),
    );
    const answered = decode(encode(answer(ZONE, query, 0.5)));
    assert.deepEqual(data(answered), ["10.244.1.3", "10.244.1.2"]);
  });

  it("follows an alias as far as it can", () => {
    assert.deepEqual(data(ask("near.shop.svc.cluster.local")), [
      "web.shop.svc.cluster.local",
      "10.96.0.11",
    ]);
    assert.deepEqual(data(ask("away.shop.svc.cluster.local")), ["example.org"]);
  });

  it("says that there is no such name, and for how long that holds", () => {
    for (const name of ["web.street.svc.cluster.local", "example.org"]) {
      const answered = ask(name);
      assert.equal(rcode(answered), 3);
      assert.equal(answered.authorities?.[0]?.type, "SOA");
    }
  });

  it("has no answer, and no error, for another type of a name that it knows", () => {
    const answered = ask("web.shop.svc.cluster.local", "MX");
    assert.deepEqual([rcode(answered), answered.answers], [0, []]);
  });

  it("refuses what is no query for a name", () => {
    const status = 2 << 11;
    assert.equal(rcode(ask("web.shop.svc.cluster.local", "A", status)), 4);
  });

  it("keeps the number and the wish of the query", () => {
    const wished = 1 << 8;
    const answered = ask("web.shop.svc.cluster.local", "A", wished);
    assert.deepEqual([answered.id, answered.flag_rd, answered.flag_aa], [7, true, true]);
  });
});
