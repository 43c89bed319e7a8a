import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { MeshError } from "#core/errors.ts";
import type { IpAddress } from "#core/ip.ts";
import { FakeTimers } from "../../test/support/fake-timers.ts";
import { Loggers, parseLogLevels } from "../log.ts";
import { EnrollmentLoop } from "./enrollment-loop.ts";
import type { Pod, PodUid } from "./pod.ts";
import type { StoredPod } from "./pod-store.ts";

const POD: Pod = {
  uid: "u1" as PodUid,
  name: "cart-1",
  namespace: "shop",
  serviceAccount: "cart",
  addresses: ["10.244.1.5" as IpAddress],
  netns: "/run/netns/a",
};

/** A host whose namespaces are entries of a map, and that notes what is done to it. */
function createHost(stored: readonly StoredPod[] = []) {
  const events: string[] = [];
  const cookies = new Map([["/run/netns/a", 1n]]);
  const disk = { pods: stored };
  const faults = { open: undefined as MeshError | undefined, openNetns: false, release: false };
  const drains: (() => void)[] = [];
  const timers = new FakeTimers();
  const loggers = new Loggers(
    { format: "json", levels: parseLogLevels("off") },
    { write: () => undefined },
  );
  const loop = new EnrollmentLoop({
    host: {
      openNetns: (path: string) => {
        if (faults.openNetns) throw new MeshError("KERNEL_CALL_FAILED", "no descriptors left");
        const cookie = cookies.get(path);
        return cookie === undefined ? undefined : { cookie: () => cookie, close: () => undefined };
      },
      open: (pod: StoredPod) => {
        if (faults.open) throw faults.open;
        events.push(`open ${pod.uid} as ${pod.id}`);
        return {
          drain: () => {
            events.push(`drain ${pod.uid}`);
            return new Promise<void>((resolve) => drains.push(resolve));
          },
          retire: async () => void events.push(`retire ${pod.uid}`),
          reclaim: () => void events.push(`reclaim ${pod.uid}`),
        };
      },
      release: (uid: PodUid) => {
        if (faults.release) throw new MeshError("KERNEL_CALL_FAILED", "Cannot remove a pin");
        events.push(`release ${uid}`);
      },
    },
    store: {
      read: () => disk.pods,
      write: (pods) => {
        disk.pods = pods;
        events.push(`write ${pods.map(({ uid }) => uid).join()}`);
      },
    },
    timers,
    log: loggers.for("enrolment"),
    drainLimitMs: 5_000,
    onChange: () => undefined,
  });
  return { loop, events, cookies, disk, faults, drains, timers };
}

const storedPod = (changes: Partial<StoredPod> = {}): StoredPod => ({
  ...POD,
  netnsCookie: 1n,
  id: 9,
  ...changes,
});

describe("EnrollmentLoop", () => {
  it("enrols once, however often a pod is put", () => {
    const { loop, events } = createHost();
    loop.put(POD);
    loop.put(POD);
    assert.deepEqual(events, ["write u1", "open u1 as 1"]);
    assert.deepEqual(
      loop.list().map(({ state }) => state),
      ["up"],
    );
  });

  it("refuses a pod whose network namespace does not exist, and forgets it", () => {
    const { loop, events } = createHost();
    assert.throws(() => loop.put({ ...POD, netns: "/nowhere" }), {
      code: "REQUEST_REFUSED",
      message: 'Cannot enrol pod "u1": there is no network namespace at "/nowhere"',
    });
    assert.deepEqual(events, []);
  });

  it("tries again by itself where the kernel said no, and says so meanwhile", async () => {
    const { loop, faults, timers } = createHost();
    faults.open = new MeshError("KERNEL_CALL_FAILED", "Cannot load");
    assert.throws(() => loop.put(POD), { message: "Cannot load" });
    assert.deepEqual(
      loop.list().map(({ state, reason }) => ({ state, reason })),
      [{ state: "pending", reason: "Cannot load" }],
    );
    faults.open = undefined;
    await timers.advance(5_000);
    assert.equal(loop.list()[0]?.state, "up");
  });

  it("forgets a pod that the kernel side finds senseless", () => {
    const { loop, faults, disk } = createHost();
    faults.open = new MeshError("REQUEST_REFUSED", "it is in the agent's network namespace");
    assert.throws(() => loop.put(POD), { code: "REQUEST_REFUSED" });
    assert.deepEqual(loop.list(), []);
    assert.deepEqual(disk.pods, []);
  });

  it("stops trying for a pod that was deleted while it waited", async () => {
    const { loop, faults, timers, events } = createHost();
    faults.open = new MeshError("KERNEL_CALL_FAILED", "Cannot load");
    assert.throws(() => loop.put(POD));
    loop.delete(POD.uid);
    faults.open = undefined;
    await timers.advance(60_000);
    assert.deepEqual(events, ["write u1", "release u1", "write "]);
  });

  it("gives a pod up whose namespace goes while it waits", async () => {
    const { loop, faults, timers, cookies } = createHost();
    faults.open = new MeshError("KERNEL_CALL_FAILED", "Cannot load");
    assert.throws(() => loop.put(POD));
    cookies.delete(POD.netns);
    await timers.advance(5_000);
    assert.deepEqual(loop.list(), []);
  });

  it("does not take a namespace that it cannot open for one that is gone", async () => {
    const { loop, faults, timers, events } = createHost();
    faults.open = new MeshError("KERNEL_CALL_FAILED", "Cannot load");
    assert.throws(() => loop.put(POD));
    faults.openNetns = true;
    await timers.advance(5_000);
    assert.equal(loop.list()[0]?.state, "pending");
    assert.ok(!events.includes("release u1"));
    faults.openNetns = false;
    faults.open = undefined;
    await timers.advance(5_000);
    assert.equal(loop.list()[0]?.state, "up");
  });

  it("moves a pod that comes back in another namespace", () => {
    const { loop, cookies, events } = createHost();
    loop.put(POD);
    cookies.set("/run/netns/b", 2n);
    loop.put({ ...POD, netns: "/run/netns/b" });
    assert.deepEqual(events.slice(2), ["release u1", "drain u1", "write u1", "open u1 as 1"]);
  });

  it("leaves a pod alone that is put by mistake with the namespace of another", () => {
    const { loop, cookies, events } = createHost();
    cookies.set("/run/netns/b", 2n);
    loop.put(POD);
    loop.put({ ...POD, uid: "u2" as PodUid, netns: "/run/netns/b" });
    const before = [...events];
    assert.throws(() => loop.put({ ...POD, netns: "/run/netns/b" }), {
      code: "REQUEST_REFUSED",
      message: 'Cannot enrol pod "u1": its network namespace is that of pod "u2"',
    });
    assert.deepEqual(events, before);
    assert.equal(loop.list()[0]?.state, "up");
  });

  it("un-enrols at once, whatever its connections do, and enrols again beside them", async () => {
    const { loop, events, drains } = createHost();
    loop.put(POD);
    loop.delete(POD.uid);
    assert.deepEqual(events.slice(2), ["release u1", "drain u1", "write "]);
    loop.put(POD);
    assert.equal(loop.list()[0]?.state, "up");
    assert.equal(drains.length, 1);
    const closed = loop.close(5_000);
    for (const finish of drains) finish();
    await closed;
  });

  it("keeps a pod whose capture could not be removed", () => {
    const { loop, faults, disk } = createHost();
    loop.put(POD);
    faults.release = true;
    assert.throws(() => loop.delete(POD.uid), { message: "Cannot remove a pin" });
    assert.equal(loop.list()[0]?.state, "up");
    assert.equal(disk.pods.length, 1);
  });

  it("takes a pod that nobody knows off the kernel when it is deleted", () => {
    const { loop, events } = createHost();
    loop.delete(POD.uid);
    assert.deepEqual(events, ["release u1"]);
  });

  it("brings the pods of the last run back under their old numbers", () => {
    const { loop, events } = createHost([storedPod()]);
    loop.restore();
    assert.deepEqual(events, ["open u1 as 9"]);
    loop.put(POD);
    assert.deepEqual(events, ["open u1 as 9"]);
  });

  it("does not take another namespace at the old path for the pod's", () => {
    const { loop, events } = createHost([storedPod({ netnsCookie: 77n })]);
    loop.restore();
    assert.deepEqual(events, ["release u1", "write "]);
    assert.deepEqual(loop.list(), []);
  });

  it("gives each pod a number of its own, and a free one again", () => {
    const { loop, events, cookies } = createHost();
    cookies.set("/run/netns/b", 2n).set("/run/netns/c", 3n);
    loop.put(POD);
    loop.put({ ...POD, uid: "u2" as PodUid, netns: "/run/netns/b" });
    loop.delete(POD.uid);
    loop.put({ ...POD, uid: "u3" as PodUid, netns: "/run/netns/c" });
    assert.deepEqual(
      events.filter((event) => event.startsWith("open")),
      ["open u1 as 1", "open u2 as 2", "open u3 as 1"],
    );
  });

  it("changes nothing while another process takes over, and takes pods back after it", () => {
    const { loop, events } = createHost();
    loop.put(POD);
    loop.pause("another agent takes over");
    assert.throws(() => loop.delete(POD.uid), {
      code: "REQUEST_REFUSED",
      message: "Cannot change pods: another agent takes over",
    });
    loop.resume();
    assert.deepEqual(events.slice(2), ["reclaim u1", "write u1"]);
    loop.delete(POD.uid);
    assert.deepEqual(loop.list(), []);
  });

  it("leaves captures and disk to the process that has taken over", async () => {
    const { loop, events } = createHost();
    loop.put(POD);
    loop.pause("another agent takes over");
    await loop.retire(Number.POSITIVE_INFINITY);
    assert.deepEqual(events.slice(2), ["retire u1"]);
  });

  it("changes nothing once it is closed", async () => {
    const { loop } = createHost();
    await loop.close(0);
    assert.throws(() => loop.put(POD), { code: "REQUEST_REFUSED" });
  });
});
