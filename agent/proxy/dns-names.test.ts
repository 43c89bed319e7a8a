import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { encode, type Question } from "dns-packet";
import { parseIpBlock } from "#core/ip.ts";
import { MeshIndex } from "#core/service/mesh-index.ts";
import { service, workload } from "../../test/support/mesh-builders.ts";
import { readQuery } from "./dns-message.ts";
import { answerFromMesh } from "./dns-names.ts";

const client = workload({ name: "cart", namespace: "shop" });
const index = new MeshIndex();
index.apply({
  services: {
    changed: [
      service("web", "10.96.0.1", { namespace: "shop" }),
      service("partner", "240.240.0.1", {
        namespace: "shop",
        hostname: "*.partner.test",
        addresses: [{ network: "", block: parseIpBlock("240.240.0.1") }],
      }),
    ],
    removed: [],
  },
  workloads: { changed: [], removed: [] },
});

/** Undefined for what is left to the nameserver, else each record in a line. */
function ask(name: string, changes: Partial<Question> = {}): readonly string[] | undefined {
  const question = { type: "A", name, ...changes } as const;
  const reading = readQuery(encode({ type: "query", id: 1, questions: [question] }));
  if (reading.kind !== "query") assert.fail(reading.kind);
  const searchDomains = ["shop.svc.cluster.local", "svc.cluster.local"];
  const packet = answerFromMesh(reading.query, { index, client, searchDomains, random: () => 0 });
  return packet?.answers?.map((answer) => {
    if (!("data" in answer) || !("ttl" in answer)) assert.fail(answer.type);
    return `${answer.name} ${answer.ttl} ${answer.type} ${String(answer.data)}`;
  });
}

describe("answerFromMesh()", () => {
  const full = "web.shop.svc.cluster.local";

  it("answers under the name that was asked, as it was written", () => {
    for (const name of [full, "web", "web.shop", "WEB.shop.SVC.cluster.local"]) {
      assert.deepEqual(ask(name), [`${name} 30 A 10.96.0.1`]);
    }
    assert.deepEqual(ask("a.b.partner.test"), ["a.b.partner.test 30 A 240.240.0.1"]);
  });

  it("leads by a CNAME to the name that it found without a search domain", () => {
    const asked = `a.partner.test.shop.svc.cluster.local`;
    assert.deepEqual(ask(`${full}.svc.cluster.local`), [
      `${full}.svc.cluster.local 30 CNAME ${full}`,
      `${full} 30 A 10.96.0.1`,
    ]);
    assert.equal(ask(asked), undefined);
  });

  it("has nothing to say, and no error, where the family is missing", () => {
    assert.deepEqual(ask(full, { type: "AAAA" }), []);
    assert.deepEqual(ask(`${full}.svc.cluster.local`, { type: "AAAA" }), []);
  });

  it("leaves other types, other classes and other names to the nameserver", () => {
    assert.equal(ask(full, { type: "TXT" }), undefined);
    assert.equal(ask(full, { class: "CH" }), undefined);
    for (const name of ["example.org", "vault.bank.svc.cluster.local", "."]) {
      assert.equal(ask(name), undefined);
    }
  });
});
