import assert from "node:assert/strict";
import { mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, it, type TestContext } from "node:test";
import type { IpAddress } from "#core/ip.ts";
import type { PodUid } from "./pod.ts";
import { createPodStore, type StoredPod } from "./pod-store.ts";

const POD: StoredPod = {
  uid: "u1" as PodUid,
  name: "cart-1",
  namespace: "shop",
  serviceAccount: "cart",
  addresses: ["10.244.1.5", "fd00::5"] as IpAddress[],
  netns: "/run/netns/x",
  netnsCookie: 2n ** 60n + 1n,
  id: 3,
  dns: { searchDomains: ["shop.test"], nameservers: ["10.96.0.10"] as IpAddress[] },
};

const makeDir = (t: TestContext): string => {
  const dir = mkdtempSync(join(tmpdir(), "pod-store-"));
  t.after(() => rmSync(dir, { recursive: true }));
  return dir;
};

describe("PodStore", () => {
  it("gives back what was written, to its owner only", (t) => {
    const dir = makeDir(t);
    createPodStore(dir, "boot").write([POD]);
    assert.deepEqual(createPodStore(dir, "boot").read(), [POD]);
    assert.equal(statSync(join(dir, "pods.json")).mode & 0o777, 0o600);
    assert.deepEqual(readdirSync(dir), ["pods.json"]);
  });

  it("knows no pods at first, and none after the host was started anew", (t) => {
    const dir = makeDir(t);
    assert.deepEqual(createPodStore(dir, "boot").read(), []);
    createPodStore(dir, "boot").write([POD]);
    assert.deepEqual(createPodStore(dir, "another boot").read(), []);
  });

  it("does not guess where the file is damaged", (t) => {
    const dir = makeDir(t);
    for (const text of ["", "{}", '{"version":2,"bootId":"boot","pods":[]}', '{"version":1']) {
      writeFileSync(join(dir, "pods.json"), text);
      assert.throws(() => createPodStore(dir, "boot").read(), { code: "OBJECT_INVALID" });
    }
  });
});
