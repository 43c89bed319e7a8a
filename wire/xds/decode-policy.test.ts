import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { create, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import fc from "fast-check";
import { MeshError } from "#core/errors.ts";
import { AuthorizationSchema, type MatchSchema } from "#wire/gen/authorization_pb.js";
import { decodeAuthorization, decodePolicy, standInFor } from "./decode-policy.ts";

type PolicyInit = MessageInitShape<typeof AuthorizationSchema>;
type MatchInit = MessageInitShape<typeof MatchSchema>;

const message = (init: PolicyInit) =>
  create(AuthorizationSchema, { namespace: "shop", name: "p", scope: 1, ...(init as object) });
const withMatch = (match: MatchInit): PolicyInit => ({
  rules: [{ clauses: [{ matches: [match] }] }],
});
const inMatch = (init: MatchInit) => decodePolicy(message(withMatch(init))).rules[0]?.[0]?.[0];
const bytes = (...values: number[]) => Uint8Array.from(values);
/** An enum value of some newer contract. */
const NEWER = 99 as never;

function refuses(init: PolicyInit, reason: string): void {
  assert.throws(
    () => decodePolicy(message(init)),
    (error) => {
      assert.ok(error instanceof MeshError);
      assert.equal(error.message.replace(/^Cannot read policy "shop\/p?": /, ""), reason);
      return error.code === "RESOURCE_INVALID";
    },
  );
}

describe("decodePolicy()", () => {
  it("clears the bits behind the prefix of a block", () => {
    const block = { address: bytes(10, 1, 2, 3), length: 8 };
    assert.deepEqual(inMatch({ sourceIps: [block] })?.sourceIps, [
      { address: "10.0.0.0", length: 8 },
    ]);
  });

  it("takes a length of 0 for every address of the family", () => {
    const block = { address: bytes(10, 1, 2, 3), length: 0 };
    assert.deepEqual(inMatch({ sourceIps: [block] })?.sourceIps, [
      { address: "0.0.0.0", length: 0 },
    ]);
  });

  it("keeps an empty match, which holds for nothing, apart from no match", () => {
    assert.notEqual(inMatch({}), undefined);
    assert.deepEqual(decodePolicy(message({ rules: [{ clauses: [{}] }] })).rules, [[[]]]);
    assert.deepEqual(decodePolicy(message({ rules: [{}] })).rules, [[]]);
  });

  const at = "rules[0].clauses[0].matches[0]";
  const refused: readonly (readonly [PolicyInit, string])[] = [
    [{ name: "" }, "name is empty"],
    [{ scope: NEWER }, "scope has the unknown value 99"],
    [{ action: NEWER }, "action has the unknown value 99"],
    [{ extensions: [{ name: "x.y/z" }] }, 'extensions has "x.y/z", whose meaning is not known'],
    [withMatch({ namespaces: [{}] }), `${at}.namespaces[0].match_type is missing`],
    [
      withMatch({ sourceIps: [{ length: 8 }] }),
      `${at}.source_ips[0].address is 0 bytes long, an address has 4 or 16`,
    ],
    [
      withMatch({ notDestinationIps: [{ address: bytes(1, 2, 3, 4), length: 33 }] }),
      `${at}.not_destination_ips[0].length is no good: ` +
        'Cannot make a block of "1.2.3.4": a prefix length is from 0 to 32, not 33',
    ],
    [
      withMatch({ destinationPorts: [80, 65_536] }),
      `${at}.destination_ports[1] is 65536, ports end at 65535`,
    ],
    [
      withMatch({ notServiceAccounts: [{ namespace: "a" }] }),
      `${at}.not_service_accounts[0].serviceAccount is empty`,
    ],
    [
      withMatch({ extensions: [{ name: "x.y/z" }] }),
      `${at}.extensions has "x.y/z", whose meaning is not known`,
    ],
  ];
  for (const [init, reason] of refused) {
    // Each of these, if it were skipped, would make the policy say something else.
    it(`refuses: ${reason.slice(0, 80)}`, () => {
      refuses(init, reason);
    });
  }

  // Each with field 99, a varint (99 << 3 | 0), inside fields of the given numbers.
  const nested: readonly (readonly [readonly number[], string])[] = [
    [[], "message"],
    [[5], "rules[0]"],
    [[5, 1], "rules[0].clauses[0]"],
    [[5, 1, 2], at],
    [[5, 1, 2, 1], `${at}.namespaces[0]`],
    [[5, 1, 2, 5], `${at}.source_ips[0]`],
    [[5, 1, 2, 11], `${at}.service_accounts[0]`],
  ];
  for (const [path, field] of nested) {
    it(`refuses a field it does not know in ${field}`, () => {
      let inner = [0x98, 0x06, 0x01];
      for (const no of path.toReversed()) inner = [(no << 3) | 2, inner.length, ...inner];
      const known = toBinary(AuthorizationSchema, message({}));
      assert.throws(() => decodeAuthorization("shop/p", bytes(...known, ...inner)), {
        message: `Cannot read policy "shop/p": ${field} has field 99, whose meaning is not known`,
      });
    });
  }
});

describe("decodeAuthorization()", () => {
  it("turns any bytes into a value or a named refusal", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (noise) => {
        try {
          decodeAuthorization("x", noise);
        } catch (error) {
          assert.ok(error instanceof MeshError && error.code === "RESOURCE_INVALID", String(error));
        }
        standInFor(noise);
      }),
      { numRuns: 2_000 },
    );
  });
});

describe("standInFor()", () => {
  const encode = (init: PolicyInit) => toBinary(AuthorizationSchema, message(init));
  const bad = withMatch({ destinationPorts: [65_536] });

  it("denies everything in place of a deny, within its scope", () => {
    const standIn = standInFor(encode({ ...(bad as object), action: 1 }));
    assert.deepEqual(standIn?.rules, [[]]);
    assert.deepEqual([standIn.scope, standIn.action, standIn.key], ["namespace", "deny", "shop/p"]);
  });

  it("allows nothing in place of an allow", () => {
    const standIn = standInFor(encode(bad));
    assert.deepEqual([standIn?.action, standIn?.rules], ["allow", []]);
  });

  it("is none where it is not legible what the policy would touch", () => {
    assert.equal(standInFor(encode({ ...(bad as object), scope: NEWER })), undefined);
    assert.equal(standInFor(bytes(0xff)), undefined);
  });
});
