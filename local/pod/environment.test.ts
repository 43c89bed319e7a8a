import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { podAddress } from "../addresses.ts";
import type { ContainerSpec } from "../object/object.ts";
import { commandOf, environmentOf, expand, type PodFields } from "./environment.ts";
import { hostsFile, nsswitchConf, resolvConf } from "./files.ts";

const FIELDS: PodFields = {
  "metadata.name": "web",
  "metadata.namespace": "shop",
  "metadata.uid": "uid",
  "spec.nodeName": "n1",
  "spec.serviceAccountName": "cart",
  "status.hostIP": "10.200.0.11",
  "status.podIP": "10.244.1.2",
  "status.podIPs": "10.244.1.2,fd44:1::2",
};

const CONTAINER: ContainerSpec = {
  name: "main",
  command: ["run", "--at=$(WHERE)", "$(HOME)"],
  workingDir: "/",
  environment: [
    { kind: "field", name: "NODE", field: "spec.nodeName" },
    { kind: "value", name: "WHERE", value: "$(NODE)/$(LATER)" },
    { kind: "value", name: "LATER", value: "x" },
  ],
  ports: [],
  startup: undefined,
  readiness: undefined,
  liveness: undefined,
};

describe("environmentOf()", () => {
  it("puts in what was defined before, and keeps the rest as it stands", () => {
    const environment = environmentOf(CONTAINER, FIELDS, { HOME: "/root" });
    assert.deepEqual(environment, { HOME: "/root", NODE: "n1", WHERE: "n1/$(LATER)", LATER: "x" });
    assert.deepEqual(commandOf(CONTAINER, environment), ["run", "--at=n1/$(LATER)", "/root"]);
  });
});

describe("expand()", () => {
  it("reads $$ as $", () => {
    assert.equal(expand("$$(A) $(A) $A $$", { A: "1" }), "$(A) 1 $A $");
  });
});

describe("files of a pod", () => {
  const host = { namespace: "shop", hostname: "web", addresses: podAddress(1, 2) };

  it("tries short names in the pod's own namespace first", () => {
    assert.match(resolvConf(host), /^search shop\.svc\.cluster\.local svc\.cluster\.local cluster/);
    assert.match(hostsFile(host), /^10\.244\.1\.2 web$/m);
  });

  it("looks names up by DNS alone", () => {
    const ofHost = "passwd: files\nhosts: mymachines resolve [!UNAVAIL=return] files dns\n";
    assert.equal(nsswitchConf(ofHost), "passwd: files\nhosts: files dns\n");
  });
});
