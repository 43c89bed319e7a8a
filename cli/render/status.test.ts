import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { LocalStatus } from "#core/local-api.ts";
import { formatAge, formatStatus } from "./status.ts";
import { formatTable } from "./table.ts";

const STATUS: LocalStatus = {
  name: "demo",
  pid: 7,
  settled: true,
  mesh: false,
  stateDir: "/run/aquifer/local/demo",
  fabric: { netns: "aq-demo-fabric" },
  control: null,
  nodes: [
    { name: "n1", netns: "aq-demo-n1", cgroup: "/cg", addresses: ["10.200.0.11"], agent: null },
  ],
  deployments: [],
  pods: [
    {
      namespace: "shop",
      name: "web",
      uid: "u",
      node: "n1",
      serviceAccount: "default",
      phase: "Running",
      ready: false,
      terminating: false,
      addresses: ["10.244.1.2", "fd44:1::2"],
      netns: "aq-demo-n1-shop.web",
      cgroup: "/cg",
      mesh: "outside",
      labels: {},
      createdAt: "2026-01-01T00:00:00.000Z",
      containers: [
        {
          name: "main",
          phase: "waiting",
          ready: false,
          restarts: 3,
          pid: null,
          exitCode: 1,
          log: "",
        },
      ],
      message: "container main: ended with 1",
    },
  ],
  services: [],
  problems: [
    {
      file: "/a.yaml",
      line: 3,
      object: "Pod shop/x",
      field: "spec",
      reason: "is wrong",
      severity: "problem",
      lastGood: true,
    },
  ],
};

describe("formatStatus()", () => {
  it("shows what runs, why something does not, and what is wrong", () => {
    const text = formatStatus(STATUS, Date.parse("2026-01-01T00:00:05.000Z"));
    assert.match(
      text,
      /shop +web +0\/1 +Running +3 +5s +10\.244\.1\.2 +n1 +outside +container main/,
    );
    assert.match(text, /a\.yaml:3: Pod shop\/x: spec: is wrong \(the version before it stays/);
  });
});

describe("formatTable()", () => {
  it("lines columns up, and ends no line with blanks", () => {
    assert.equal(formatTable(["A", "B"], [["long", ""]]), "A     B\nlong\n");
  });
});

describe("formatAge()", () => {
  it("has one unit", () => {
    assert.deepEqual([-5, 119_000, 120_000, 7_200_000].map(formatAge), ["0s", "119s", "2m", "2h"]);
  });
});
