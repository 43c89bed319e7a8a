/**
 * AuthorizationPolicy to a policy on connections, with the meaning that Istio gives it in ambient
 * mode. What a connection cannot be asked about (a path, a token) makes a policy stricter, never
 * weaker, and is told.
 *
 * @see https://istio.io/latest/docs/reference/config/security/authorization-policy/
 * @see docs/decisions/0009-objects-that-cannot-be-understood.md
 */
import type { Policy, Rule } from "#core/policy/policy.ts";
import { policyKeyOf } from "#core/service/workload.ts";
import type { Field } from "./field.ts";
import { readSelector } from "./metadata.ts";
import type { AuthorizationPolicyObject, Labels } from "./objects.ts";
import { readRule } from "./policy-rule.ts";
import type { Reading } from "./reading.ts";

/** An `action` other than these two is no decision about a connection. */
const ACTIONS = { ALLOW: "allow", DENY: "deny" } as const;
type Action = Policy["action"];

export interface PolicyReading {
  readonly object: AuthorizationPolicyObject;
  /** In force where there are mistakes, and no earlier version without. */
  readonly substitute: AuthorizationPolicyObject | undefined;
}

export function interpretAuthorizationPolicy(reading: Reading): PolicyReading {
  const { root, metadata } = reading;
  root.only(["apiVersion", "kind", "metadata", "spec", "status"]);
  const spec = root.get("spec");
  spec.only(["action", "provider", "rules", "selector", "targetRef", "targetRefs"]);
  const isOurs = isForConnections(spec);
  const dryRun = readDryRun(root.get("metadata"));

  const labels = spec.get("selector").apart(readSelector);
  // A selector that cannot be read may mean any workload of its namespace.
  const selector = labels.isGood ? labels.value : undefined;

  const action = readAction(spec.get("action"));
  const rules = readRules(spec.get("rules"), action, reading);
  const make = (policyAction: Action, policyRules: readonly Rule[]): AuthorizationPolicyObject => {
    const policy = policyOf(reading, selector, policyAction, policyRules, dryRun);
    return { kind: "AuthorizationPolicy", ...metadata, selector, policy };
  };
  return {
    object: make(action ?? "deny", rules),
    // An allow policy only ever adds to what is allowed, so the one that adds nothing is as strict
    // as any. A deny policy takes away, and the one that takes all is.
    substitute: isOurs ? make(action ?? "deny", action === "allow" ? [] : [[]]) : undefined,
  };
}

/** Complains, and says no, where the policy is not about connections to workloads. */
function isForConnections(spec: Field): boolean {
  const target = ["targetRef", "targetRefs"].map((name) => spec.get(name)).find(isUsed);
  if (target) {
    target.complain("policies of waypoints are not served by this release");
    if (spec.get("selector").isPresent) {
      spec.get("selector").complain("cannot stand beside targetRefs");
    }
  }
  const action = spec.get("action");
  const isOtherAction = action.value === "AUDIT" || action.value === "CUSTOM";
  if (isOtherAction) {
    action.complain(`${action.value} cannot be enforced on connections; ALLOW and DENY can`);
  } else if (spec.get("provider").isPresent) {
    spec.get("provider").complain("only a policy with action CUSTOM has a provider");
  }
  return !target && !isOtherAction;
}

function isUsed(field: Field): boolean {
  return field.isPresent && !(Array.isArray(field.value) && field.value.length === 0);
}

function readAction(field: Field): Action | undefined {
  if (!field.isPresent) return "allow";
  if (field.value === "AUDIT" || field.value === "CUSTOM") return undefined;
  const action = field.oneOf(["ALLOW", "DENY"]);
  return action && ACTIONS[action];
}

function readDryRun(metadata: Field): boolean {
  const field = metadata.get("annotations").get("istio.io/dry-run");
  return field.oneOf(["true", "false"]) === "true";
}

function readRules(field: Field, action: Action | undefined, reading: Reading): readonly Rule[] {
  const items = field.items();
  if (items.length === 0 && action === "deny") {
    field.complain("a DENY policy without rules denies nothing");
  }
  return items
    .map((item) => readRule(item, action ?? "deny", reading))
    .filter((rule): rule is Rule => rule !== undefined);
}

function policyOf(
  { metadata: { name, namespace }, settings }: Reading,
  selector: Labels | undefined,
  action: Action,
  rules: readonly Rule[],
  dryRun: boolean,
): Policy {
  const widest = namespace === settings.rootNamespace ? "global" : "namespace";
  return {
    key: policyKeyOf(namespace, name),
    name,
    namespace,
    scope: selector ? "workload" : widest,
    action,
    dryRun,
    rules,
  };
}
