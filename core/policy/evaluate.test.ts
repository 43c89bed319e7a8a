import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { parseIp, parseIpBlock } from "../ip.ts";
import { policyKeyOf } from "../service/workload.ts";
import { parseSpiffeId } from "../spiffe-id.ts";
import { evaluate, evaluateDryRun } from "./evaluate.ts";
import { type Connection, EMPTY_MATCH, type Match, type Policy, type Rule } from "./policy.ts";

const cart: Connection = {
  sourceIdentity: parseSpiffeId("spiffe://cluster.local/ns/shop/sa/cart"),
  sourceIp: parseIp("10.0.0.5"),
  destinationIp: parseIp("10.0.0.9"),
  destinationPort: 8080,
};
const plaintext: Connection = { ...cart, sourceIdentity: undefined };

const match = (fields: Partial<Match>): Match => ({ ...EMPTY_MATCH, ...fields });
const when = (fields: Partial<Match>): Rule[] => [[[match(fields)]]];
const ANYONE: Rule[] = [[]];

const policy = (action: "allow" | "deny", rules: readonly Rule[]): Policy => ({
  key: policyKeyOf("shop", action),
  name: action,
  namespace: "shop",
  scope: "namespace",
  action,
  dryRun: false,
  rules,
});

const matches = (fields: Partial<Match>, connection: Connection): boolean =>
  evaluate([policy("deny", when(fields))], connection).verdict === "deny";

describe("evaluate()", () => {
  it("allows everything where there is no policy", () => {
    assert.deepEqual(evaluate([], plaintext), { verdict: "allow", because: "noAllowPolicies" });
  });

  it("denies what no allow policy names", () => {
    const other = policy("allow", when({ namespaces: [{ kind: "exact", value: "bank" }] }));
    assert.deepEqual(evaluate([other], cart), {
      verdict: "deny",
      because: "notAllowed",
      among: ["shop/allow"],
    });
  });

  it("lets a deny policy win over an allow policy, in either order", () => {
    const both = [policy("allow", ANYONE), policy("deny", ANYONE)];
    for (const policies of [both, both.toReversed()]) {
      assert.deepEqual(evaluate(policies, cart), {
        verdict: "deny",
        because: "denied",
        by: "shop/deny",
      });
    }
  });

  it("names the policy that allowed", () => {
    const decision = evaluate([policy("allow", ANYONE)], cart);
    assert.deepEqual(decision, { verdict: "allow", because: "allowed", by: "shop/allow" });
  });

  it("matches nothing with a policy without rules, so that such an allow denies all", () => {
    assert.equal(evaluate([policy("allow", [])], cart).verdict, "deny");
    assert.equal(evaluate([policy("deny", [])], cart).verdict, "allow");
  });

  it("matches everything with a rule without clauses, and with a clause without matches", () => {
    assert.equal(evaluate([policy("deny", [[]])], plaintext).verdict, "deny");
    assert.equal(evaluate([policy("deny", [[[]]])], plaintext).verdict, "deny");
  });

  // Surprising, and part of the contract.
  it("matches nothing with a match that asks nothing", () => {
    assert.equal(evaluate([policy("deny", [[[EMPTY_MATCH]]])], cart).verdict, "allow");
  });

  it("needs every clause of a rule, and one match of a clause", () => {
    const port = match({ destinationPorts: [8080] });
    const otherPort = match({ destinationPorts: [1] });
    const account = match({ serviceAccounts: [{ namespace: "shop", serviceAccount: "cart" }] });
    assert.equal(evaluate([policy("deny", [[[port], [account]]])], cart).verdict, "deny");
    assert.equal(evaluate([policy("deny", [[[otherPort], [account]]])], cart).verdict, "allow");
    assert.equal(evaluate([policy("deny", [[[otherPort, port]]])], cart).verdict, "deny");
  });

  it("does not enforce a dry run", () => {
    const dry = { ...policy("deny", ANYONE), dryRun: true };
    assert.equal(evaluate([dry], cart).verdict, "allow");
    assert.equal(evaluateDryRun([dry], cart)?.verdict, "deny");
    assert.equal(evaluateDryRun([policy("deny", ANYONE)], cart), undefined);
  });
});

describe("a match", () => {
  for (const [name, fields, ofCart, ofPlaintext] of [
    ["namespace", { namespaces: [{ kind: "exact", value: "shop" }] }, true, false],
    ["namespace prefix", { namespaces: [{ kind: "prefix", value: "sh" }] }, true, false],
    ["namespace suffix", { namespaces: [{ kind: "suffix", value: "op" }] }, true, false],
    ["namespace presence", { namespaces: [{ kind: "presence" }] }, true, false],
    ["not namespace", { notNamespaces: [{ kind: "exact", value: "shop" }] }, false, true],
    [
      "principal without its scheme",
      { principals: [{ kind: "exact", value: "cluster.local/ns/shop/sa/cart" }] },
      true,
      false,
    ],
    [
      "principal with its scheme",
      { principals: [{ kind: "exact", value: "spiffe://cluster.local/ns/shop/sa/cart" }] },
      false,
      false,
    ],
    ["no principal (strict)", { notPrincipals: [{ kind: "presence" }] }, false, true],
    [
      "service account",
      { serviceAccounts: [{ namespace: "shop", serviceAccount: "cart" }] },
      true,
      false,
    ],
    [
      "service account of another namespace",
      { serviceAccounts: [{ namespace: "bank", serviceAccount: "cart" }] },
      false,
      false,
    ],
    [
      "not service account",
      { notServiceAccounts: [{ namespace: "shop", serviceAccount: "cart" }] },
      false,
      true,
    ],
    ["source block", { sourceIps: [parseIpBlock("10.0.0.0/24")] }, true, true],
    ["other source block", { sourceIps: [parseIpBlock("10.1.0.0/24")] }, false, false],
    ["not source block", { notSourceIps: [parseIpBlock("10.0.0.0/24")] }, false, false],
    ["destination block", { destinationIps: [parseIpBlock("10.0.0.9")] }, true, true],
    ["not destination block", { notDestinationIps: [parseIpBlock("10.0.0.9")] }, false, false],
    ["port", { destinationPorts: [1, 8080] }, true, true],
    ["not port", { notDestinationPorts: [8080] }, false, false],
    [
      "several fields, of which one fails",
      { namespaces: [{ kind: "exact", value: "shop" }], destinationPorts: [1] },
      false,
      false,
    ],
  ] as const satisfies readonly (readonly [string, Partial<Match>, boolean, boolean])[]) {
    it(`by ${name}: ${ofCart} with an identity, ${ofPlaintext} without`, () => {
      assert.equal(matches(fields, cart), ofCart);
      assert.equal(matches(fields, plaintext), ofPlaintext);
    });
  }
});
