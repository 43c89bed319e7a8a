import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { type IpAddress, parseIp, parseIpBlock } from "../ip.ts";
import { policyKeyOf } from "../service/workload.ts";
import { parseSpiffeId, type SpiffeId } from "../spiffe-id.ts";
import { ANY, compilePolicies, entryKey, lookUp, type WorkloadClass } from "./compile.ts";
import { evaluate } from "./evaluate.ts";
import { EMPTY_MATCH, type Match, type Policy, type Rule, type StringMatch } from "./policy.ts";

const idOf = (namespace: string, account: string): SpiffeId =>
  parseSpiffeId(`spiffe://cluster.local/ns/${namespace}/sa/${account}`);

const NAMESPACES = ["shop", "bank"];
const ACCOUNTS = ["cart", "thief"];
const IDENTITIES = NAMESPACES.flatMap((ns) => ACCOUNTS.map((account) => idOf(ns, account)));
const PORTS = [80, 443, 8080];
const ADDRESSES = ["10.0.0.1", "10.0.0.2", "10.1.0.1"].map(parseIp);

function policy(action: "allow" | "deny", rules: readonly Rule[], name = action): Policy {
  const key = policyKeyOf("shop", name);
  return { key, name, namespace: "shop", scope: "namespace", action, dryRun: false, rules };
}

function classes(policies: readonly Policy[] | undefined): readonly WorkloadClass[] {
  return IDENTITIES.map((identity, index) => ({
    id: index + 1,
    identity,
    policies: index === 0 ? policies : undefined,
  }));
}

function tableOf(policies: readonly Policy[] | undefined) {
  const { entries } = compilePolicies(classes(policies), 65_536);
  return new Map(
    entries.map((entry) => [entryKey(entry.destination, entry.source, entry.port), entry]),
  );
}

const texts = (values: readonly string[]): fc.Arbitrary<StringMatch[]> =>
  fc.array(
    fc
      .tuple(
        fc.constantFrom<StringMatch["kind"][]>("exact", "prefix", "suffix", "presence"),
        fc.constantFrom(...values),
      )
      .map(([kind, value]): StringMatch => (kind === "presence" ? { kind } : { kind, value })),
    { maxLength: 2 },
  );
const principals = texts([
  "cluster.local/ns/shop/sa/cart",
  "cluster.local/ns/shop",
  "sa/thief",
  "other",
]);
const namespaces = texts([...NAMESPACES, "sh", "ank"]);
const blocks = fc.array(
  fc.constantFrom("10.0.0.0/8", "10.0.0.1", "10.1.0.0/16").map(parseIpBlock),
  { maxLength: 1 },
);
const ports = fc.array(fc.constantFrom(...PORTS), { maxLength: 2 });
const accounts = fc.array(
  fc.record({
    namespace: fc.constantFrom(...NAMESPACES),
    serviceAccount: fc.constantFrom(...ACCOUNTS),
  }),
  { maxLength: 1 },
);
const sometimes = <Value>(values: fc.Arbitrary<Value[]>): fc.Arbitrary<Value[]> =>
  fc.oneof({ weight: 3, arbitrary: fc.constant<Value[]>([]) }, { weight: 1, arbitrary: values });
const matches: fc.Arbitrary<Match> = fc.record({
  namespaces: sometimes(namespaces),
  notNamespaces: sometimes(namespaces),
  principals: sometimes(principals),
  notPrincipals: sometimes(principals),
  serviceAccounts: sometimes(accounts),
  notServiceAccounts: sometimes(accounts),
  sourceIps: sometimes(blocks),
  notSourceIps: sometimes(blocks),
  destinationIps: sometimes(blocks),
  notDestinationIps: sometimes(blocks),
  destinationPorts: sometimes(ports),
  notDestinationPorts: sometimes(ports),
});
const rules = fc.array(fc.array(fc.array(matches, { maxLength: 2 }), { maxLength: 2 }), {
  maxLength: 2,
});
const policySets = fc.array(
  fc
    .tuple(fc.constantFrom("allow" as const, "deny" as const), rules, fc.boolean())
    .map(([action, list, dryRun]) => ({ ...policy(action, list), dryRun })),
  { maxLength: 3 },
);

describe("compilePolicies()", () => {
  it("never says anything but what evaluate() says, or that the agent is to judge", () => {
    let decided = 0;
    fc.assert(
      fc.property(policySets, (policies) => {
        const table = tableOf(policies);
        for (const [index, sourceIdentity] of IDENTITIES.entries()) {
          for (const destinationPort of [...PORTS, 9_999]) {
            const verdict = lookUp(table, 1, index + 1, destinationPort)?.verdict ?? "agent";
            if (verdict === "agent") continue;
            decided++;
            for (const sourceIp of ADDRESSES) {
              for (const destinationIp of ADDRESSES) {
                const connection = { sourceIdentity, sourceIp, destinationIp, destinationPort };
                assert.equal(verdict, evaluate(policies, connection).verdict);
              }
            }
          }
        }
      }),
      { numRuns: 3_000 },
    );
    assert.ok(decided > 3_000, "the property was hardly put to the test");
  });

  it("says the same of a source that it was not compiled for, or nothing", () => {
    const stranger = idOf("elsewhere", "stranger");
    const sourceIp: IpAddress = parseIp("10.0.0.1");
    fc.assert(
      fc.property(policySets, fc.constantFrom(...PORTS), (policies, destinationPort) => {
        const verdict = lookUp(tableOf(policies), 1, 77, destinationPort)?.verdict ?? "agent";
        if (verdict === "agent") return;
        const connection = {
          sourceIdentity: stranger,
          sourceIp,
          destinationIp: sourceIp,
          destinationPort,
        };
        assert.equal(verdict, evaluate(policies, connection).verdict);
      }),
      { numRuns: 2_000 },
    );
  });

  it("needs one entry where there is no policy, whatever the number of sources", () => {
    const { entries } = compilePolicies(classes([]), 65_536);
    assert.deepEqual(entries, [
      { destination: 1, source: ANY, port: ANY, verdict: "allow", by: undefined },
    ]);
  });

  it("decides by identity and port, with the policy that decided", () => {
    const only = policy("allow", [
      [
        [
          {
            ...EMPTY_MATCH,
            principals: [{ kind: "exact", value: "cluster.local/ns/shop/sa/cart" }],
          },
        ],
      ],
    ]);
    const table = tableOf([only]);
    assert.deepEqual(lookUp(table, 1, 1, 80)?.by, only.key);
    assert.equal(lookUp(table, 1, 1, 80)?.verdict, "allow");
    assert.equal(lookUp(table, 1, 2, 80)?.verdict, "deny");
  });

  it("leaves to the agent what depends on addresses", () => {
    const fromBlock = [[[{ ...EMPTY_MATCH, sourceIps: [parseIpBlock("10.0.0.0/8")] }]]];
    assert.equal(lookUp(tableOf([policy("allow", fromBlock)]), 1, 1, 80)?.verdict, "agent");
  });

  it("writes nothing for a class that the agent has to judge", () => {
    assert.equal(compilePolicies(classes(undefined), 65_536).entries.length, 0);
  });

  it("leaves a class out whole where its entries do not all fit", () => {
    const byPort = [[[{ ...EMPTY_MATCH, destinationPorts: [80] }]]];
    const compiled = compilePolicies(classes([policy("deny", byPort)]), 1);
    assert.deepEqual(compiled, { entries: [], leftOut: [1] });
  });
});
