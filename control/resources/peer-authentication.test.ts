import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { complaintsForTest, interpretForTest, understoodForTest } from "./fixtures.ts";

function text(spec: unknown, namespace = "shop"): string {
  return JSON.stringify({
    apiVersion: "security.istio.io/v1beta1",
    kind: "PeerAuthentication",
    metadata: { name: "strict", namespace },
    spec,
  });
}

describe("a PeerAuthentication", () => {
  it("has a mode, which may be unset", () => {
    const modeOf = (mtls: unknown) => understoodForTest("PeerAuthentication", text({ mtls })).mode;
    assert.equal(modeOf({ mode: "STRICT" }), "strict");
    assert.equal(modeOf({ mode: "PERMISSIVE" }), "permissive");
    assert.equal(modeOf({ mode: "DISABLE" }), "permissive");
    assert.equal(modeOf({ mode: "UNSET" }), "unset");
    assert.equal(modeOf({}), "unset");
    assert.equal(modeOf(undefined), "unset");
  });

  it("has modes for ports where it names workloads", () => {
    const selector = { matchLabels: { app: "web" } };
    const portLevelMtls = { 8080: { mode: "STRICT" }, 9090: { mode: "DISABLE" }, 7070: {} };
    const { portModes } = understoodForTest(
      "PeerAuthentication",
      text({ selector, portLevelMtls }),
    );
    assert.deepEqual([...portModes].sort(), [
      [7070, "unset"],
      [8080, "strict"],
      [9090, "permissive"],
    ]);
  });

  const MISTAKES: readonly (readonly [unknown, string])[] = [
    [
      { mtls: { mode: "Strict" } },
      'spec.mtls.mode: expected UNSET, DISABLE, PERMISSIVE, STRICT; got "Strict"',
    ],
    [{ mtls: "STRICT" }, 'spec.mtls: expected a map, got "STRICT"'],
    [{ mode: "STRICT" }, "spec.mode: unknown field"],
    [
      { portLevelMtls: { 80: { mode: "STRICT" } } },
      "spec.portLevelMtls: ports can be named only where a selector names workloads",
    ],
    [{ selector: { matchLabels: { a: "b" } }, portLevelMtls: {} }, "spec.portLevelMtls: is empty"],
    [
      { selector: { matchLabels: { a: "b" } }, portLevelMtls: { http: {}, 80: {} } },
      "spec.portLevelMtls.http: expected a port from 1 to 65535",
    ],
    [
      { selector: { matchLabels: { a: 1 } } },
      "spec.selector.matchLabels.a: expected a string, got 1, write it in quotes",
    ],
  ];
  for (const [spec, expected] of MISTAKES) {
    it(`is refused: ${expected}`, () => {
      assert.deepEqual(complaintsForTest(text(spec)), [expected]);
      const interpretation = interpretForTest(text(spec));
      assert.equal(interpretation.kind, "refused");
      const { substitute } = interpretation;
      assert.equal(substitute?.kind, "PeerAuthentication");
      assert.deepEqual([substitute.mode, substitute.failsClosed], ["strict", true]);
    });
  }

  it("says that a selector has no effect in the root namespace", () => {
    const spec = { selector: { matchLabels: { a: "b" } } };
    assert.deepEqual(complaintsForTest(text(spec, "istio-system")), [
      "spec.selector: has no effect in the root namespace, as in Istio: leave out the selector there",
    ]);
  });
});
