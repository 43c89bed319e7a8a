import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { parseIp } from "#core/ip.ts";
import { evaluate } from "#core/policy/evaluate.ts";
import type { Connection, Policy } from "#core/policy/policy.ts";
import { parseSpiffeId } from "#core/spiffe-id.ts";
import { authentication, Mesh, pod, WEB } from "./fixtures.ts";

/** Whether plaintext to a port of pod `web` is let in. */
function takesPlaintext(mesh: Mesh, port: number): boolean {
  const { policies } = mesh.index.current();
  const named = mesh.workload("web").policies.map((key) => policies.get(key));
  const known = named.filter((policy): policy is Policy => policy !== undefined);
  assert.equal(known.length, named.length, "a policy is named that is not there");
  const connection: Connection = {
    sourceIdentity: undefined,
    sourceIp: parseIp("10.0.0.9"),
    destinationIp: parseIp("10.244.1.5"),
    destinationPort: port,
  };
  const trusted = parseSpiffeId("spiffe://cluster.local/ns/a/sa/b");
  const withIdentity = evaluate(known, { ...connection, sourceIdentity: trusted });
  assert.equal(withIdentity.verdict, "allow", "an identity is refused");
  return evaluate(known, connection).verdict === "allow";
}

describe("PeerAuthentications", () => {
  const web = pod("web", { labels: { app: "web" } });
  const mode = (name: string) => ({ mtls: { mode: name } });
  const ports = (modes: object) => ({ ...WEB, portLevelMtls: modes });
  const [strict, permissive] = [{ mode: "STRICT" }, { mode: "PERMISSIVE" }];

  // Objects, then whether plaintext is let in at port 80 and at port 81.
  const CASES: readonly (readonly [string, readonly string[], boolean, boolean])[] = [
    ["nothing", [], true, true],
    ["a strict mesh", [authentication("d", mode("STRICT"), "istio-system")], false, false],
    ["a strict namespace", [authentication("d", mode("STRICT"))], false, false],
    ["another namespace that is strict", [authentication("d", mode("STRICT"), "b")], true, true],
    ["a strict workload", [authentication("w", { ...WEB, ...mode("STRICT") })], false, false],
    [
      "a permissive namespace in a strict mesh",
      [
        authentication("d", mode("STRICT"), "istio-system"),
        authentication("d", mode("PERMISSIVE")),
      ],
      true,
      true,
    ],
    [
      "an unset namespace in a strict mesh",
      [authentication("d", mode("STRICT"), "istio-system"), authentication("d", {})],
      false,
      false,
    ],
    [
      "a disabled workload in a strict namespace",
      [authentication("d", mode("STRICT")), authentication("w", { ...WEB, ...mode("DISABLE") })],
      true,
      true,
    ],
    [
      "an unset workload in a strict namespace",
      [authentication("d", mode("STRICT")), authentication("w", WEB)],
      false,
      false,
    ],
    ["a strict port", [authentication("w", ports({ 80: strict }))], false, true],
    [
      "a permissive port of a strict workload",
      [authentication("w", { ...ports({ 80: permissive }), ...mode("STRICT") })],
      true,
      false,
    ],
    [
      "a permissive port in a strict namespace",
      [authentication("d", mode("STRICT")), authentication("w", ports({ 80: permissive }))],
      true,
      false,
    ],
    [
      "an unset port in a strict mesh",
      [
        authentication("d", mode("STRICT"), "istio-system"),
        authentication("w", ports({ 80: {}, 81: permissive })),
      ],
      false,
      true,
    ],
    [
      "a strict port of a permissive workload in a strict mesh",
      [
        authentication("d", mode("STRICT"), "istio-system"),
        authentication("w", { ...ports({ 80: strict }), ...mode("PERMISSIVE") }),
      ],
      false,
      true,
    ],
    [
      "a strict selector in the root namespace, which has no effect",
      [authentication("w", { ...WEB, ...mode("STRICT") }, "istio-system")],
      true,
      true,
    ],
    [
      "the older of two",
      [
        authentication("a", mode("PERMISSIVE"), "shop", "2026-02-01T00:00:00Z"),
        authentication("b", mode("STRICT"), "shop", "2026-01-01T00:00:00Z"),
      ],
      false,
      false,
    ],
    [
      "the older of two that select the same",
      [
        authentication("a", { ...WEB, ...mode("STRICT") }, "shop"),
        authentication("b", { ...WEB, ...mode("PERMISSIVE") }, "shop", "2026-01-01T00:00:00Z"),
      ],
      true,
      true,
    ],
    [
      "one that cannot be understood, beside one that is older",
      [
        authentication("a", mode("PERMISSIVE"), "shop", "2026-01-01T00:00:00Z"),
        authentication("b", mode("Strict")),
      ],
      false,
      false,
    ],
    [
      "one that cannot be understood, about another workload",
      [authentication("b", { selector: { matchLabels: { app: "b" } }, ...mode("x") })],
      true,
      true,
    ],
    [
      "one for the mesh that cannot be understood",
      [authentication("b", mode("x"), "istio-system")],
      false,
      false,
    ],
  ];
  for (const [what, objects, at80, at81] of CASES) {
    it(`lets plaintext in or not: ${what}`, () => {
      const mesh = new Mesh(web, ...objects);
      assert.deepEqual([takesPlaintext(mesh, 80), takesPlaintext(mesh, 81)], [at80, at81]);
    });
  }

  it("has the policies that Istio has, by the names that Istio gives them", () => {
    const objects = [
      authentication("d", mode("STRICT")),
      authentication("w", ports({ 80: permissive })),
    ];
    const mesh = new Mesh(web, pod("api"), ...objects);
    const [fixed, own] = [
      "istio-system/istio_converted_static_strict",
      "shop/converted_peer_authentication_w",
    ];
    assert.deepEqual([...mesh.index.current().policies.keys()], [fixed, own]);
    assert.deepEqual(mesh.workload("api").policies, [fixed]);
    assert.deepEqual(mesh.workload("web").policies, [own]);
    const scopes = [...mesh.index.current().policies.values()].map(({ scope }) => scope);
    assert.deepEqual(scopes, ["workload", "workload"]);
  });

  it("tells which of two for one namespace has no effect", () => {
    const mesh = new Mesh(authentication("b", mode("STRICT")), authentication("a", {}));
    assert.deepEqual(mesh.problems, [
      "test.json:1: PeerAuthentication shop/b: PeerAuthentication shop/a holds for the whole " +
        "namespace already; this one has no effect",
    ]);
  });
});
