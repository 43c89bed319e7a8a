import assert from "node:assert/strict";
import { type ChildProcess, execFileSync } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdirSync, rmdirSync, writeFileSync } from "node:fs";
import net from "node:net";
import { join } from "node:path";
import { after, before, describe, it, type TestContext } from "node:test";
import { parseIp } from "#core/ip.ts";
import { BpfMap, type Netns, openNetns } from "#native/kernel/index.ts";
import { type CapturedPod, openDatapath } from "../../agent/kernel/datapath.ts";
import { encodeMeta, encodeUint32, HANDOFF_KEY, NOTE } from "../../agent/kernel/layout.ts";
import { makeNetwork, type TestNetwork } from "../support/netns.ts";
import { OBJECT_DIR, PYTHON, Rig, startAgent, uidOf } from "./rig.ts";

describe("enrol()", () => {
  let network: TestNetwork;
  let rig: Rig;

  before(() => {
    network = makeNetwork("enrol");
    rig = new Rig(network);
  });
  after(async () => {
    await rig?.close();
    network?.close();
  });

  const python = (program: string) => network.a.python(PYTHON + program);
  const podA = (changes: Partial<CapturedPod> = {}): CapturedPod => ({
    uid: "pod-a",
    netns: network.a.netns,
    addresses: [network.a.ip4, network.a.ip6],
    id: 1,
    ...changes,
  });

  it("starts blocked: EPERM outbound, refused inbound", async () => {
    const capture = rig.datapath.enrol(podA());
    const lines = await python(`
dial("10.1.2.2", 80); dial("fd00:2::2", 80); dial("::ffff:10.1.2.2", 80)
s = socket.socket(); s.setblocking(False); print(errno.errorcode[s.connect_ex(("10.1.2.2", 80))])`);
    assert.deepEqual(lines.split("\n"), new Array(4).fill("EPERM"));
    const inbound = await network.b.python(`${PYTHON}dial("10.1.1.2", 80)`);
    assert.equal(inbound, "ECONNREFUSED");
    assert.equal(rig.datapath.counters().blocked, 4);

    capture.unblock();
    assert.equal(await python(`dial("10.1.2.2", 80)`), "ECONNREFUSED");
    capture.block();
    assert.equal(await python(`dial("10.1.2.2", 80)`), "EPERM");
    capture.remove();
  });

  it("keeps a pod as it is when it is called again", async () => {
    await rig.enrol(network.a);
    const program = `dial("10.96.0.1", 80)`;
    assert.match(await python(program), / original=10.96.0.1:80$/);
    const again = rig.datapath.enrol(podA({ uid: uidOf(network.a) }));
    assert.match(await python(program), / original=10.96.0.1:80$/);
    again.remove();
  });

  it("refuses connections of a family that the pod has no address of", async () => {
    const { capture } = await rig.enrol(network.a, [network.a.ip4]);
    assert.equal(await python(`dial("fd00:2::2", 80)`), "EPERM");
    assert.match(await python(`dial("10.1.2.2", 80)`), / original=/);
    assert.equal(rig.datapath.counters().noAddress, 1);
    capture.remove();
  });

  it("selects by network namespace: another cgroup is no way out", async () => {
    const { capture } = await rig.enrol(network.a);
    const line = await python(`
open("${network.b.cgroup}/cgroup.procs", "w").write(str(os.getpid()))
dial("10.1.2.2", 80)`);
    assert.match(line, / original=10.1.2.2:80$/);
    capture.remove();
  });

  it("leaves no destination where the handoff map is full, and counts it", async () => {
    const { capture } = await rig.enrol(network.a);
    const handoff = BpfMap.openPinned(join(rig.pinDir, "maps/handoff"));
    const filler = new Uint8Array(HANDOFF_KEY.bytes);
    const keys = Array.from({ length: 65_536 }, (_, index) => {
      filler.set(encodeUint32(index));
      return filler.slice();
    });
    for (const key of keys) handoff.update(key, new Uint8Array(NOTE.bytes));
    assert.match(await python(`dial("10.1.2.2", 80)`), / original=none$/);
    assert.equal(rig.datapath.counters().handoffFull, 1);
    for (const key of keys) handoff.delete(key);
    handoff.close();
    assert.equal(rig.handoffEntries(), 0);
    capture.remove();
  });

  for (const [what, changes, message] of [
    ["no address", { addresses: [] }, /expected one address, or one of each family/],
    [
      "two addresses of a family",
      { addresses: [parseIp("10.1.1.2"), parseIp("10.1.1.3")] },
      /expected one address, or one of each family/,
    ],
    ["a loopback address", { addresses: [parseIp("::1")] }, /::1 is not an address of a pod/],
    ["id 0", { id: 0 }, /id 0 is not in 1 to 2\^32-1/],
    ["a uid that is a path", { uid: "../links" }, /Cannot use pod uid "\.\.\/links"/],
    ["an empty uid", { uid: "" }, /Cannot use pod uid ""/],
  ] as const) {
    it(`refuses ${what}, and changes nothing`, () => {
      assert.throws(() => rig.datapath.enrol(podA(changes)), { code: "REQUEST_REFUSED", message });
      assert.deepEqual(rig.datapath.adopted(), []);
    });
  }

  it("refuses the agent's own network namespace", () => {
    const netns = openNetns(process.pid);
    assert.throws(() => rig.datapath.enrol(podA({ netns })), /in the agent's network namespace/);
    netns.close();
    assert.deepEqual(rig.datapath.adopted(), []);
  });

  it("refuses a second pod in one network namespace", () => {
    const capture = rig.datapath.enrol(podA());
    assert.throws(
      () => rig.datapath.enrol(podA({ uid: "intruder" })),
      /its network namespace is that of pod "pod-a"/,
    );
    capture.remove();
  });

  /** A network namespace besides those of the network, which goes with the test at the latest. */
  function makeNetns(t: TestContext, label: string): { netns: Netns; remove: () => void } {
    const name = `${network.name}-${label}`;
    execFileSync("ip", ["netns", "add", name]);
    const netns = openNetns(`/run/netns/${name}`);
    const remove = () => {
      if (!existsSync(netns.path)) return;
      netns.close();
      execFileSync("ip", ["netns", "del", name]);
    };
    t.after(remove);
    return { netns, remove };
  }

  it("forgets a pod whose network namespace is gone", (t) => {
    const { netns, remove } = makeNetns(t, "gone");
    rig.datapath.enrol(podA({ uid: "gone", netns }));
    remove();
    assert.deepEqual(rig.datapath.adopted(), ["gone"]);
    rig.datapath.forget("gone");
    assert.deepEqual(rig.datapath.adopted(), []);
    assert.deepEqual(podEntries(rig), 0);
    rig.datapath.forget("gone"); // twice is once
  });

  it("moves a pod whose sandbox was made anew", async (t) => {
    const { netns } = makeNetns(t, "old");
    rig.datapath.enrol(podA({ netns }));
    const capture = rig.datapath.enrol(podA());
    assert.equal(await python(`dial("10.1.2.2", 80)`), "EPERM");
    assert.equal(podEntries(rig), 1);
    capture.remove();
    assert.equal(podEntries(rig), 0);
  });
});

describe("two agents on one host", () => {
  let theirs: TestNetwork;
  let ours: TestNetwork;
  let other: ChildProcess;
  let rig: Rig;

  before(async () => {
    // This process is in the cgroup of the network that is made last, and the other agent in that
    // of the first.
    theirs = makeNetwork("their");
    other = await startAgent(theirs, theirs.a);
    ours = makeNetwork("our");
    rig = new Rig(ours);
    rig.datapath.enrol({
      uid: "blocked",
      netns: ours.a.netns,
      addresses: [ours.a.ip4],
      id: 1,
    });
  });
  after(async () => {
    other?.kill("SIGTERM");
    await rig?.close();
    ours?.close();
    theirs?.close();
  });

  const dial = (network: TestNetwork) => network.a.python(`${PYTHON}dial("10.96.0.1", 80)`);

  it("do not see each other's pods, though their addresses are the same", async () => {
    assert.match(await dial(theirs), / original=10.96.0.1:80$/);
    assert.equal(await dial(ours), "EPERM");
    const { captured, blocked } = rig.datapath.counters();
    assert.deepEqual({ captured, blocked }, { captured: 0, blocked: 1 });
  });

  it("can be uninstalled one by one", async () => {
    other.kill("SIGTERM");
    await once(other, "exit");
    assert.ok(!existsSync(`/sys/fs/bpf/${theirs.name}`));
    assert.equal(await dial(ours), "EPERM");
    assert.equal(await theirs.a.python(`${PYTHON}dial("10.1.1.1", 80)`), "ECONNREFUSED");
  });
});

describe("openDatapath()", () => {
  let network: TestNetwork;
  before(() => {
    network = makeNetwork("open");
  });
  after(() => network?.close());

  it("touches nothing where the pins are of a newer agent", async () => {
    const rig = new Rig(network);
    const meta = BpfMap.openPinned(join(rig.pinDir, "maps/meta"));
    meta.update(encodeUint32(0), encodeMeta({ abi: 99, nextId: 1 }));
    assert.throws(() => rig.open(), {
      code: "KERNEL_UNSUPPORTED",
      message: /pins have layout 99, this agent knows 2/,
    });
    meta.close();
    await rig.close();
  });

  for (const [what, changes] of [
    ["a relative pin directory", { pinDir: "pins" }],
    ["a pin directory with a dot", { pinDir: "/sys/fs/bpf/a.b" }],
    ["a pin directory elsewhere", { pinDir: "/tmp/aquifer-pins" }],
    ["a cgroup that is not there", { cgroupRoot: "/sys/fs/cgroup/nowhere" }],
  ] as const) {
    it(`refuses ${what}`, () => {
      const pinDir = `/sys/fs/bpf/${network.name}`;
      const options = { pinDir, cgroupRoot: network.cgroupRoot, objectDir: OBJECT_DIR, ...changes };
      assert.throws(() => openDatapath(options), { code: "SETTINGS_INVALID" });
    });
  }

  it("refuses a cgroup that the agent itself is not in", () => {
    const { name, a } = network;
    assert.throws(() => new Rig({ name, cgroupRoot: a.cgroup }), {
      code: "SETTINGS_INVALID",
      message: /this process is outside/,
    });
  });

  it("attaches anew where the cgroup of the pins is gone and has been made again", async () => {
    const { name, cgroupRoot, a } = network;
    const dir = join(cgroupRoot, "again");
    const procs = (where: string) => join(where, "cgroup.procs");
    const rig = (() => {
      mkdirSync(dir);
      writeFileSync(procs(dir), String(process.pid));
      const first = new Rig({ name, cgroupRoot: dir });
      first.datapath.close();
      writeFileSync(procs(join(cgroupRoot, "agent")), String(process.pid));
      rmdirSync(dir);
      mkdirSync(dir);
      writeFileSync(procs(dir), String(process.pid));
      return new Rig({ name, cgroupRoot: dir });
    })();
    rig.datapath.enrol({ uid: "a", netns: a.netns, addresses: [a.ip4], id: 1 });
    const fd = a.netns.openSocket({ family: "ipv4" });
    const socket = new net.Socket({ fd, manualStart: true } as net.SocketConstructorOpts);
    const [error] = await once(socket.connect({ host: "10.1.2.2", port: 80 }), "error");
    assert.equal(error.code, "EPERM");
    await rig.close();
    writeFileSync(procs(join(cgroupRoot, "agent")), String(process.pid));
    rmdirSync(dir);
  });

  it("uninstalls without the pins of another agent that are below its own", async () => {
    const { cgroupRoot } = network;
    const options = { cgroupRoot, objectDir: OBJECT_DIR };
    const outer = openDatapath({ ...options, pinDir: `/sys/fs/bpf/${network.name}` });
    const inner = openDatapath({ ...options, pinDir: `/sys/fs/bpf/${network.name}/node/n1` });
    outer.uninstall();
    assert.ok(existsSync(`/sys/fs/bpf/${network.name}/node/n1/maps/pods`));
    assert.ok(!existsSync(`/sys/fs/bpf/${network.name}/maps`));
    inner.uninstall();
    assert.ok(!existsSync(`/sys/fs/bpf/${network.name}`));
  });

  it("leaves a pin directory without a trace", async () => {
    const rig = new Rig(network);
    rig.datapath.enrol({
      uid: "a",
      netns: network.a.netns,
      addresses: [network.a.ip4],
      id: 1,
    });
    await rig.close();
    assert.ok(!existsSync(rig.pinDir));
  });
});

function podEntries(rig: Rig): number {
  const pods = BpfMap.openPinned(join(rig.pinDir, "maps/pods"));
  try {
    return pods.keys().length;
  } finally {
    pods.close();
  }
}
