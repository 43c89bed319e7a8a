import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { MeshError } from "#core/errors.ts";
import { readConfig } from "./config.ts";

const REQUIRED = { NODE_NAME: "n1" };

const mistakesOf = (env: Record<string, string>): readonly string[] => {
  try {
    readConfig(env);
  } catch (error) {
    assert.ok(error instanceof MeshError);
    assert.equal(error.code, "SETTINGS_INVALID");
    return error.message
      .split("\n")
      .slice(1)
      .map((line) => line.trim());
  }
  return [];
};

describe("readConfig()", () => {
  it("needs nothing but the node's name", () => {
    const config = readConfig(REQUIRED);
    assert.equal(config.node.name, "n1");
    assert.equal(config.xds.address.href, "https://istiod.istio-system.svc:15012/");
    assert.equal(config.clusterId, "Kubernetes");
    assert.deepEqual(config.adminAddress, { ip: "127.0.0.1", port: 15_000 });
    assert.deepEqual(config.statsAddress, { ip: "::", port: 15_020 });
    assert.equal(config.drainLimitMs, 5_000);
    assert.equal(config.certificateTtlMs, 86_400_000);
    assert.deepEqual(config.dns, { capture: true, forwardTimeoutMs: 5_000 });
  });

  it("reports all mistakes together", () => {
    assert.deepEqual(
      mistakesOf({
        XDS_ADDRESS: "http://control:15012",
        SECRET_TTL: "24",
        HTTP2_FRAME_SIZE: "1",
        TLS12_ENABLED: "true",
        LOG_FORMAT: "xml",
      }),
      [
        'XDS_ADDRESS="http://control:15012": expected https: tokens need encryption',
        "NODE_NAME is not set",
        'SECRET_TTL="24": expected a number and ms, s, m or h',
        'LOG_FORMAT="xml": expected "json" or "plain"',
        'HTTP2_FRAME_SIZE="1": expected an integer from 16384 to 16777215',
        'TLS12_ENABLED="true": only TLS 1.3 is supported',
      ],
    );
  });

  it("asks the discovery server for certificates unless told otherwise", () => {
    const config = readConfig({ ...REQUIRED, XDS_ADDRESS: "https://10.200.0.2:15012" });
    assert.equal(config.ca.address.host, "10.200.0.2:15012");
  });

  it("leaves Kubernetes some seconds of the grace period", () => {
    const withGrace = (seconds: string) =>
      readConfig({ ...REQUIRED, TERMINATION_GRACE_PERIOD_SECONDS: seconds }).drainLimitMs;
    assert.equal(withGrace("30"), 25_000);
    assert.equal(withGrace("10"), 9_000);
    assert.equal(
      readConfig({
        ...REQUIRED,
        TERMINATION_GRACE_PERIOD_SECONDS: "30",
        CONNECTION_TERMINATION_DEADLINE: "3s",
      }).drainLimitMs,
      3_000,
    );
  });

  it("tells a token from the path of a file with one", () => {
    const tokenOf = (text: string) => readConfig({ ...REQUIRED, AUTH_TOKEN: text }).token;
    assert.deepEqual(tokenOf("/run/token"), { kind: "file", path: "/run/token" });
    assert.deepEqual(tokenOf("aa.bb.cc"), { kind: "text", text: "aa.bb.cc" });
  });

  it("tells a root from the path of a file with one", () => {
    const rootOf = (text: string) => readConfig({ ...REQUIRED, XDS_ROOT_CA: text }).xds.root;
    assert.deepEqual(rootOf("SYSTEM"), { kind: "system" });
    assert.deepEqual(rootOf("/run/root.pem"), { kind: "file", path: "/run/root.pem" });
    assert.equal(rootOf("-----BEGIN CERTIFICATE-----\n").kind, "pem");
  });

  it("does not let an agent with a cgroup of its own share another agent's pins", () => {
    assert.deepEqual(mistakesOf({ ...REQUIRED, AQUIFER_CGROUP_ROOT: "/sys/fs/cgroup/n1" }), [
      "AQUIFER_CGROUP_ROOT needs an AQUIFER_PIN_DIR of its own",
    ]);
  });

  it("answers no DNS queries where it is told so", () => {
    const env = { ...REQUIRED, ISTIO_META_DNS_CAPTURE: "false", DNS_FORWARD_TIMEOUT: "2s" };
    assert.deepEqual(readConfig(env).dns, { capture: false, forwardTimeoutMs: 2_000 });
  });

  it("hands metadata and headers on", () => {
    const config = readConfig({ ...REQUIRED, ISTIO_META_A: "b", XDS_HEADER_X_NAME: "v" });
    assert.deepEqual(config.node.metadata, { A: "b" });
    assert.deepEqual(config.xds.headers, { x_name: "v" });
  });
});
