import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { ProbeHandler, ProbeSpec } from "../object/object.ts";
import { probePorts, strictEgress } from "./guard.ts";

function probe(handler: ProbeHandler): ProbeSpec {
  const times = { initialDelayMs: 0, periodMs: 1_000, timeoutMs: 1_000 };
  return { handler, ...times, successThreshold: 1, failureThreshold: 3 };
}

function httpGet(port: number, host?: string): ProbeSpec {
  return probe({ kind: "httpGet", path: "/", port, host, scheme: "HTTP", headers: [] });
}

describe("probePorts()", () => {
  it("names each port once at which the node connects to the pod", () => {
    const containers = [
      {
        startup: httpGet(8080),
        readiness: probe({ kind: "tcpSocket", port: 9090, host: undefined }),
        liveness: httpGet(8080),
      },
      {
        startup: undefined,
        readiness: httpGet(80, "10.0.0.1"),
        liveness: probe({ kind: "exec", command: ["true"] }),
      },
    ];
    assert.deepEqual(probePorts(containers), [8080, 9090]);
  });
});

describe("strictEgress()", () => {
  it("passes on what the user wrote, and nothing where that is nothing", () => {
    const cgroup = "/sys/fs/cgroup/pod";
    assert.deepEqual(strictEgress({}, cgroup), {});
    assert.deepEqual(strictEgress({ "aquifer.mesh/strict-egress": "enforce" }, cgroup), {
      strictEgress: { mode: "enforce", cgroup },
    });
  });
});
