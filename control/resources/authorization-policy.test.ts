import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { parseIp } from "#core/ip.ts";
import { EMPTY_MATCH, type Match, type Policy } from "#core/policy/policy.ts";
import {
  complaintsForTest,
  interpretForTest,
  ROOT_NAMESPACE,
  rawObjectFromJson,
  understoodForTest,
} from "./fixtures.ts";

/** A policy in namespace `shop`, whose spec is written as JSON. */
function policyText(spec: unknown, { namespace = "shop", annotations = {} } = {}): string {
  return JSON.stringify({
    apiVersion: "security.istio.io/v1",
    kind: "AuthorizationPolicy",
    metadata: { name: "web", namespace, annotations },
    spec,
  });
}

function policyOf(spec: unknown, options?: { namespace?: string; annotations?: object }): Policy {
  return understoodForTest("AuthorizationPolicy", policyText(spec, options)).policy;
}

function substituteOf(spec: unknown, options?: { annotations?: object }): Policy | undefined {
  const interpretation = interpretForTest(policyText(spec, options));
  assert.equal(interpretation.kind, "refused");
  const { substitute } = interpretation;
  return substitute?.kind === "AuthorizationPolicy" ? substitute.policy : undefined;
}

const match = (part: Partial<Match>): Match => ({ ...EMPTY_MATCH, ...part });
const from = (source: object) => ({ rules: [{ from: [{ source }] }] });
const to = (operation: object) => ({ rules: [{ to: [{ operation }] }] });
const when = (condition: object) => ({ rules: [{ when: [condition] }] });
const block = (address: string, length: number) => ({ address: parseIp(address), length });

describe("an AuthorizationPolicy", () => {
  it("allows nothing where it says nothing", () => {
    const policy = policyOf({});
    assert.deepEqual([policy.action, policy.rules, policy.scope], ["allow", [], "namespace"]);
  });

  it("holds for the mesh in the root namespace, and for named workloads with a selector", () => {
    const selector = { matchLabels: { app: "web" } };
    assert.equal(policyOf({}, { namespace: ROOT_NAMESPACE }).scope, "global");
    assert.equal(policyOf({}, { namespace: ROOT_NAMESPACE }).namespace, ROOT_NAMESPACE);
    assert.equal(policyOf({ selector }).scope, "workload");
    assert.equal(policyOf({ selector: {} }).scope, "namespace");
    assert.equal(policyOf({ selector: { matchLabels: {} } }).scope, "namespace");
  });

  it("is the same in version v1beta1", () => {
    const text = policyText({}).replace("security.istio.io/v1", "security.istio.io/v1beta1");
    assert.equal(understoodForTest("AuthorizationPolicy", text).policy.key, "shop/web");
  });

  it("is a dry run where its annotation says so", () => {
    const annotations = { "istio.io/dry-run": "true" };
    assert.equal(policyOf({}, { annotations }).dryRun, true);
    assert.equal(policyOf({}).dryRun, false);
  });

  const MATCHES: readonly (readonly [object, Partial<Match>])[] = [
    [from({ namespaces: ["a"] }), { namespaces: [{ kind: "exact", value: "a" }] }],
    [from({ namespaces: ["a*"] }), { namespaces: [{ kind: "prefix", value: "a" }] }],
    [from({ notNamespaces: ["*a"] }), { notNamespaces: [{ kind: "suffix", value: "a" }] }],
    [from({ principals: ["*"] }), { principals: [{ kind: "presence" }] }],
    [
      from({ principals: ["cluster.local/ns/a/sa/b"], notPrincipals: ["*/sa/c"] }),
      {
        principals: [{ kind: "exact", value: "cluster.local/ns/a/sa/b" }],
        notPrincipals: [{ kind: "suffix", value: "/sa/c" }],
      },
    ],
    [
      from({ serviceAccounts: ["a/b", "c"] }),
      {
        serviceAccounts: [
          { namespace: "a", serviceAccount: "b" },
          { namespace: "shop", serviceAccount: "c" },
        ],
      },
    ],
    [
      from({ notServiceAccounts: ["a/b"] }),
      { notServiceAccounts: [{ namespace: "a", serviceAccount: "b" }] },
    ],
    [
      from({ ipBlocks: ["10.0.0.0/8", "::1"], notIpBlocks: ["10.1.2.3"] }),
      {
        sourceIps: [block("10.0.0.0", 8), block("::1", 128)],
        notSourceIps: [block("10.1.2.3", 32)],
      },
    ],
    [
      to({ ports: ["80", "443"], notPorts: ["8080"] }),
      { destinationPorts: [80, 443], notDestinationPorts: [8080] },
    ],
    [when({ key: "destination.port", values: ["80"] }), { destinationPorts: [80] }],
    [
      when({ key: "destination.ip", notValues: ["fd00::/8"] }),
      { notDestinationIps: [block("fd00::", 8)] },
    ],
    [when({ key: "source.ip", values: ["10.0.0.0/8"] }), { sourceIps: [block("10.0.0.0", 8)] }],
    [
      when({ key: "source.namespace", values: ["a"], notValues: ["b"] }),
      {
        namespaces: [{ kind: "exact", value: "a" }],
        notNamespaces: [{ kind: "exact", value: "b" }],
      },
    ],
    [
      when({ key: "source.principal", notValues: ["td/ns/a/sa/*"] }),
      { notPrincipals: [{ kind: "prefix", value: "td/ns/a/sa/" }] },
    ],
  ];
  for (const [spec, expected] of MATCHES) {
    it(`asks what ${JSON.stringify(spec).slice(10, -1)} asks`, () => {
      assert.deepEqual(policyOf(spec).rules, [[[match(expected)]]]);
    });
  }

  it("joins entries of a list by or, and from, to and when by and", () => {
    const rule = {
      from: [{ source: { namespaces: ["a"] } }, { source: { namespaces: ["b"] } }],
      to: [{ operation: { ports: ["80"] } }],
      when: [
        { key: "source.ip", values: ["10.0.0.0/8"] },
        { key: "destination.port", values: ["80"] },
      ],
    };
    const [clauses] = policyOf({ rules: [rule, {}] }).rules;
    assert.deepEqual(
      clauses?.map((clause) => clause.length),
      [2, 1, 1, 1],
    );
    assert.deepEqual(policyOf({ rules: [rule, {}] }).rules[1], []);
  });
});

describe("an AuthorizationPolicy about requests", () => {
  it("loses a rule that allows by something only requests have, and says so", () => {
    const spec = {
      rules: [
        { to: [{ operation: { methods: ["GET"] } }] },
        { to: [{ operation: { ports: ["80"] } }] },
      ],
    };
    assert.deepEqual(policyOf(spec).rules, [[[match({ destinationPorts: [80] })]]]);
    assert.deepEqual(complaintsForTest(policyText(spec)), [
      "spec.rules.0.to.0.operation.methods: methods is known of requests only, not of " +
        "connections; the rule allows nothing",
    ]);
  });

  it("loses every rule that allows by a condition on requests", () => {
    for (const key of ["request.headers[x]", "request.auth.claims[a][b]", "remote.ip"]) {
      assert.deepEqual(policyOf(when({ key, values: ["a"] })).rules, [], key);
    }
  });

  it("denies by what is left, where a rule denies", () => {
    const rule = {
      from: [{ source: { namespaces: ["a"], requestPrincipals: ["*"] } }],
      to: [{ operation: { methods: ["DELETE"] } }],
    };
    const spec = { action: "DENY", rules: [rule] };
    const left = match({ namespaces: [{ kind: "exact", value: "a" }] });
    assert.deepEqual(policyOf(spec).rules, [[[left]]]);
    assert.deepEqual(complaintsForTest(policyText(spec)), [
      "spec.rules.0.from.0.source.requestPrincipals: requestPrincipals is known of requests " +
        "only, not of connections; the rule denies without looking at it",
      "spec.rules.0.to.0.operation.methods: methods is known of requests only, not of " +
        "connections; the rule denies without looking at it",
    ]);
  });

  // Surprising: Istio sends an empty match here, which is skipped, so that its rule denies nothing.
  it("denies all where nothing is left", () => {
    for (const spec of [
      to({ paths: ["/admin"] }),
      when({ key: "connection.sni", values: ["a"] }),
    ]) {
      assert.deepEqual(policyOf({ ...spec, action: "DENY" }).rules, [[]]);
    }
  });

  it("denies by no entry at all, where one of several has nothing left", () => {
    const rule = { to: [{ operation: { ports: ["80"] } }, { operation: { hosts: ["a"] } }] };
    assert.deepEqual(policyOf({ action: "DENY", rules: [rule] }).rules, [[]]);
  });
});

describe("a wrong AuthorizationPolicy", () => {
  const BLOCKS = "spec.rules.0.from.0.source.ipBlocks.0";
  const PORTS = "spec.rules.0.to.0.operation.ports.0";
  const PRINCIPALS = "spec.rules.0.from.0.source.principals.0";
  const MISTAKES: readonly (readonly [unknown, string])[] = [
    [{ rule: [] }, 'spec.rule: unknown field, is "rules" meant'],
    [{ colour: 1 }, "spec.colour: unknown field"],
    [
      { rules: [{ from: [{ source: { namespace: ["a"] } }] }] },
      'spec.rules.0.from.0.source.namespace: unknown field, is "namespaces" meant',
    ],
    [{ rules: {} }, "spec.rules: expected a list, got a map"],
    [{ rules: [null] }, "spec.rules.0: is empty; a rule that is always true is written {}"],
    [{ rules: ["all"] }, 'spec.rules.0: expected a map, got "all"'],
    [{ rules: [{ from: [] }] }, "spec.rules.0.from: is empty"],
    [{ rules: [{ from: [{}] }] }, "spec.rules.0.from.0.source: is missing"],
    [from({}), "spec.rules.0.from.0.source: is empty"],
    [from({ principals: null }), "spec.rules.0.from.0.source: is empty"],
    [from({ principals: [] }), "spec.rules.0.from.0.source.principals: is empty"],
    [from({ principals: [""] }), `${PRINCIPALS}: is empty`],
    [from({ principals: [null] }), `${PRINCIPALS}: is empty`],
    [from({ principals: [7] }), `${PRINCIPALS}: expected a string, got 7, write it in quotes`],
    [
      from({ principals: ["a*b"] }),
      `${PRINCIPALS}: "a*b" has a "*" that is neither alone, first nor last`,
    ],
    [
      from({ principals: ["*a*"] }),
      `${PRINCIPALS}: "*a*" has a "*" that is neither alone, first nor last`,
    ],
    [from({ principals: ["a b"] }), `${PRINCIPALS}: "a b" has a space in it`],
    [
      from({ principals: ["spiffe://cluster.local/ns/a/sa/b"] }),
      `${PRINCIPALS}: is written without "spiffe://"`,
    ],
    [
      from({ serviceAccounts: ["a/*"] }),
      'spec.rules.0.from.0.source.serviceAccounts.0: expected "namespace/name" or "name", ' +
        'got "a/*"',
    ],
    [
      from({ serviceAccounts: ["a/b"], namespaces: ["c"] }),
      "spec.rules.0.from.0.source.serviceAccounts: cannot stand beside namespaces",
    ],
    [
      from({ ipBlocks: ["10.0.0.0/33"] }),
      `${BLOCKS}: Cannot read block "10.0.0.0/33": prefix length is wrong`,
    ],
    [from({ ipBlocks: ["10.0.0.300"] }), `${BLOCKS}: Cannot read address "10.0.0.300": not an IP`],
    [
      from({ ipBlocks: ["10.1.2.3/8"] }),
      `${BLOCKS}: Cannot read block "10.1.2.3/8": address has bits behind the prefix, ` +
        '"10.0.0.0/8" has none',
    ],
    [to({ ports: ["0"] }), `${PORTS}: expected a port from "1" to "65535", got "0"`],
    [to({ ports: ["65536"] }), `${PORTS}: expected a port from "1" to "65535", got "65536"`],
    [to({ ports: ["http"] }), `${PORTS}: expected a port from "1" to "65535", got "http"`],
    [to({ ports: [80] }), `${PORTS}: expected a string, got 80, write it in quotes`],
    [
      to({ methods: "GET" }),
      'spec.rules.0.to.0.operation.methods: expected a list of strings, got "GET"',
    ],
    [when({ values: ["a"] }), "spec.rules.0.when.0.key: is missing"],
    [when({ key: "source.ip" }), "spec.rules.0.when.0: has neither values nor notValues"],
    [
      when({ key: "source.port", values: ["1"] }),
      'spec.rules.0.when.0.key: "source.port" is no condition',
    ],
    [
      when({ key: "source.ip", values: ["x"] }),
      'spec.rules.0.when.0.values.0: Cannot read address "x": not an IP',
    ],
    [{ action: "DENY" }, "spec.rules: a DENY policy without rules denies nothing"],
    [{ action: "Deny", rules: [{}] }, 'spec.action: expected ALLOW, DENY; got "Deny"'],
    [
      { action: "AUDIT", rules: [{}] },
      "spec.action: AUDIT cannot be enforced on connections; ALLOW and DENY can",
    ],
    [
      { action: "CUSTOM", provider: { name: "a" }, rules: [{}] },
      "spec.action: CUSTOM cannot be enforced on connections; ALLOW and DENY can",
    ],
    [{ provider: { name: "a" } }, "spec.provider: only a policy with action CUSTOM has a provider"],
    [
      { targetRefs: [{ kind: "Service", name: "web" }] },
      "spec.targetRefs: policies of waypoints are not served by this release",
    ],
    [
      { selector: { matchLabels: { app: "*" } } },
      'spec.selector.matchLabels.app: a label is compared as it stands, "*" does not stand for ' +
        "others",
    ],
    [{ selector: { app: "web" } }, "spec.selector.app: unknown field"],
  ];
  for (const [spec, expected] of MISTAKES) {
    it(`is refused: ${expected}`, () => {
      assert.equal(interpretForTest(policyText(spec)).kind, "refused");
      assert.deepEqual(complaintsForTest(policyText(spec)), [expected]);
    });
  }

  it("names all of its mistakes", () => {
    const spec = { rules: [{ to: [{ operation: { ports: ["x", "y"] } }] }], tagretRefs: [] };
    assert.equal(complaintsForTest(policyText(spec)).length, 3);
  });

  it("is refused where its annotation for a dry run is neither true nor false", () => {
    const text = policyText({}, { annotations: { "istio.io/dry-run": "yes" } });
    assert.deepEqual(complaintsForTest(text), [
      'metadata.annotations.istio.io/dry-run: expected true, false; got "yes"',
    ]);
  });

  it("leaves an allow policy in force that allows nothing to whom it selects", () => {
    const selector = { matchLabels: { app: "web" } };
    const policy = substituteOf({ ...from({ ipBlocks: ["x"] }), selector });
    assert.deepEqual([policy?.action, policy?.rules, policy?.scope], ["allow", [], "workload"]);
  });

  it("leaves a deny policy in force that denies all to whom it selects", () => {
    const selector = { matchLabels: { app: "web" } };
    for (const action of ["DENY", "DENNY"]) {
      const policy = substituteOf({ ...from({ ipBlocks: ["x"] }), selector, action });
      assert.deepEqual([policy?.action, policy?.rules, policy?.scope], ["deny", [[]], "workload"]);
    }
  });

  it("selects its whole namespace where its selector cannot be read", () => {
    const policy = substituteOf({
      selector: { matchLabels: ["app"] },
      action: "DENY",
      rules: [{}],
    });
    assert.deepEqual([policy?.rules, policy?.scope], [[[]], "namespace"]);
  });

  it("leaves nothing in force where it is not about connections", () => {
    assert.equal(substituteOf({ action: "AUDIT", rules: [{}] }), undefined);
    assert.equal(substituteOf({ action: "CUSTOM", rules: [{}] }), undefined);
    assert.equal(substituteOf({ targetRefs: [{ kind: "Service", name: "a" }] }), undefined);
  });

  it("leaves a dry run in force as a dry run", () => {
    const annotations = { "istio.io/dry-run": "true" };
    assert.equal(substituteOf({ action: "DENY" }, { annotations })?.dryRun, true);
  });
});

describe("any AuthorizationPolicy", () => {
  const word = fc.constantFrom(
    ...["from", "to", "when", "source", "operation", "rules", "selector", "matchLabels", "action"],
    ...[
      "principals",
      "notPrincipals",
      "namespaces",
      "ipBlocks",
      "ports",
      "methods",
      "key",
      "values",
    ],
    ...[
      "source.ip",
      "DENY",
      "ALLOW",
      "*",
      "10.0.0.0/8",
      "80",
      "a*",
      "__proto__",
      "constructor",
      "",
    ],
  );
  const anything = fc.letrec((tie) => ({
    value: fc.oneof(
      { maxDepth: 6, withCrossShrink: true },
      word,
      fc.constantFrom(null, true, 0, -1, 80, 1e300),
      fc.array(tie("value"), { maxLength: 3 }),
      fc.dictionary(word, tie("value"), { maxKeys: 4 }),
    ),
  })).value;

  it("is understood or refused, and never anything else", () => {
    fc.assert(
      fc.property(anything, (spec) => {
        const interpretation = interpretForTest(policyText(spec), rawObjectFromJson);
        if (interpretation.kind === "refused") assert.ok(interpretation.mistakes.length > 0);
      }),
      { numRuns: 3_000 },
    );
  });

  const list = fc.option(
    fc.array(fc.constantFrom("", "a", "*", "80", "10.0.0.0/8"), { maxLength: 2 }),
  );
  const source = fc.record(
    { principals: list, namespaces: list, ipBlocks: list, requestPrincipals: list },
    { requiredKeys: [] },
  );
  const operation = fc.record({ ports: list, methods: list }, { requiredKeys: [] });

  it("never allows more because something of it was left out", () => {
    fc.assert(
      fc.property(source, operation, (someSource, someOperation) => {
        const rule = { from: [{ source: someSource }], to: [{ operation: someOperation }] };
        const interpretation = interpretForTest(policyText({ rules: [rule] }), rawObjectFromJson);
        if (interpretation.kind === "refused") return;
        const { object } = interpretation;
        assert.equal(object.kind, "AuthorizationPolicy");
        for (const clauses of object.policy.rules) {
          assert.equal(clauses.length, 2, "a clause is missing");
          for (const clause of clauses) assert.notDeepEqual(clause, [EMPTY_MATCH]);
        }
      }),
      { numRuns: 2_000 },
    );
  });
});
