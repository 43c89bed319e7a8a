import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { MeshError } from "#core/errors.ts";
import { readConfig, readTokenConfig } from "./config.ts";

const REQUIRED = { AQUIFER_SOURCE_DIRECTORIES: "/objects", AQUIFER_STATE_DIR: "/state" };

function mistakesOf(read: () => unknown): readonly string[] {
  try {
    read();
  } catch (error) {
    assert.ok(error instanceof MeshError && error.code === "SETTINGS_INVALID");
    const [title, ...lines] = error.message.split("\n").map((line) => line.trim());
    assert.equal(title, "Cannot read settings:");
    return lines;
  }
  return [];
}

describe("readConfig()", () => {
  it("needs to be told where objects and state are, and nothing else", () => {
    const config = readConfig(REQUIRED);
    assert.deepEqual(config.sourceDirectories, ["/objects"]);
    assert.deepEqual(config.discoveryAddress, { ip: "::", port: 15_012 });
    assert.deepEqual(config.adminAddress, { ip: "::", port: 15_014 });
    assert.equal(config.trustDomain, "cluster.local");
    assert.equal(config.clusterId, "Kubernetes");
    assert.equal(config.rootNamespace, "istio-system");
    assert.equal(config.network, undefined);
    assert.deepEqual(config.log, { format: "plain", level: "info" });
    assert.equal(mistakesOf(() => readConfig({})).length, 2);
  });

  it("takes lists apart, each folder once", () => {
    const config = readConfig({
      ...REQUIRED,
      AQUIFER_SOURCE_DIRECTORIES: "/a:/b:/a",
      AQUIFER_SERVER_NAMES: "control, 10.200.0.2,fd45::2",
    });
    assert.deepEqual(config.sourceDirectories, ["/a", "/b"]);
    assert.deepEqual(config.serverNames, ["control", "10.200.0.2", "fd45::2"]);
  });

  const MISTAKES: readonly (readonly [string, string, string])[] = [
    ["AQUIFER_SOURCE", "kubernetes", 'not available yet, use "directory"'],
    ["AQUIFER_SOURCE", "etcd", 'not known, use "directory"'],
    ["AQUIFER_SOURCE_DIRECTORIES", "/a:", "a folder's name is empty"],
    ["AQUIFER_STATE_DIR", "", "is empty"],
    ["AQUIFER_DISCOVERY_ADDRESS", "control:1", 'Cannot read address "control": not an IP'],
    ["AQUIFER_SERVER_NAMES", "a,,b", '"" is no name and no address'],
    ["TRUST_DOMAIN", "Cluster", 'expected lower case letters, digits, ".", "_" and "-"'],
    ["CLUSTER_ID", "a//b", 'expected letters, digits, ".", "_" and "-"'],
    ["ROOT_NAMESPACE", "a/b", "expected the name of a namespace"],
    ["NETWORK", "a/b", 'expected letters, digits, ".", "_" and "-"'],
    ["LOG_FORMAT", "text", 'expected "json" or "plain"'],
    ["AQUIFER_LOG_LEVEL", "loud", "expected one of error, warn, info, debug"],
  ];
  for (const [name, value, expected] of MISTAKES) {
    it(`refuses ${name}="${value}"`, () => {
      const mistakes = mistakesOf(() => readConfig({ ...REQUIRED, [name]: value }));
      assert.deepEqual(mistakes, [`${name}="${value}": ${expected}`]);
    });
  }

  it("lists all mistakes together", () => {
    const env = Object.fromEntries(MISTAKES.map(([name, value]) => [name, value]));
    assert.equal(mistakesOf(() => readConfig(env)).length, Object.keys(env).length);
  });

  it("refuses one address for two things", () => {
    const address = "127.0.0.1:15012";
    const env = { AQUIFER_DISCOVERY_ADDRESS: address, AQUIFER_ADMIN_ADDRESS: address };
    assert.deepEqual(
      mistakesOf(() => readConfig({ ...REQUIRED, ...env })),
      ["AQUIFER_DISCOVERY_ADDRESS and AQUIFER_ADMIN_ADDRESS are the same"],
    );
  });
});

describe("readTokenConfig()", () => {
  const env = { AQUIFER_STATE_DIR: "/state" };

  it("gives a day unless it is told otherwise", () => {
    assert.equal(readTokenConfig(env, { node: "n1" }).ttlMs, 86_400_000);
    assert.equal(readTokenConfig(env, { node: "n1", ttl: "5m" }).ttlMs, 300_000);
  });

  it("lists all mistakes together", () => {
    assert.deepEqual(
      mistakesOf(() => readTokenConfig({}, { node: "a b", ttl: "9000h" })),
      [
        "AQUIFER_STATE_DIR is not set",
        '--node="a b": expected the name of a node',
        '--ttl="9000h": expected 1s to 8760h',
      ],
    );
    assert.deepEqual(
      mistakesOf(() => readTokenConfig(env, {})),
      ["--node is not set"],
    );
  });
});
