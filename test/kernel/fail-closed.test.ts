import assert from "node:assert/strict";
import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { after, afterEach, before, beforeEach, describe, it } from "node:test";
import { cgroup2Root, until } from "../support/kernel.ts";
import { makeNetwork, type TestNetwork } from "../support/netns.ts";
import { PYTHON, Rig, startAgent, uidOf } from "./rig.ts";

/** Applications of pod b that nobody may reach but through the agent. */
const SERVERS = `
serve("10.1.2.2", 8080, 99); serve("fd00:2::2", 8080, 99); print("up", flush=True); time.sleep(60)`;

describe("without its agent", () => {
  let network: TestNetwork;
  let applications: ChildProcess;

  before(async () => {
    network = makeNetwork("dead");
    applications = network.b.start("/usr/bin/python3", ["-c", PYTHON + SERVERS]);
    if (applications.stdout) await once(applications.stdout, "data");
  });
  after(() => {
    applications?.kill();
    network?.close();
  });

  const python = (program: string) => network.a.python(PYTHON + program);
  const pinDir = () => `/sys/fs/bpf/${network.name}`;

  /** Starts an agent that has enrolled `pod`, and kills it. */
  async function enrolAndDie(pod: "a" | "b"): Promise<void> {
    const agent = await startAgent(network, network[pod]);
    agent.kill("SIGKILL");
    await once(agent, "exit");
  }

  describe("the pod that connects", () => {
    beforeEach(() => enrolAndDie("a"));
    afterEach(() => new Rig(network).close());

    it("is refused, at once, over each kind of socket", async () => {
      const lines = await python(`
for host in ("10.1.2.2", "fd00:2::2", "::ffff:10.1.2.2", "10.96.0.10"): dial(host, 8080)`);
      assert.deepEqual(lines.split("\n"), new Array(4).fill("ECONNREFUSED"));
    });

    it("still reaches itself", async () => {
      const line = await python(`serve("0.0.0.0", 8081, 2); dial("10.1.1.2", 8081)`);
      assert.match(line, / app accept=10.1.1.2:/);
    });

    it("may try elsewhere with the same socket, which then knows its new peer", async () => {
      const lines = await python(`
serve("127.0.0.1", 8082); s = socket.socket()
try: s.connect(("10.1.2.2", 8080))
except OSError as error: print(errno.errorcode[error.errno])
dial("127.0.0.1", 8082, s)`);
      assert.match(lines, /^ECONNREFUSED\nname=127.0.0.1:\d+ peer=127.0.0.1:8082 app accept=/);
    });

    it("cannot put a listener in the agent's place", async () => {
      const line = await python(`serve("0.0.0.0", 15001); dial("10.1.2.2", 8080)`);
      assert.equal(line, "ECONNREFUSED");
    });

    it("keeps its pins, and the next agent takes over", async () => {
      for (const pin of ["links/out_connect4", "links/mesh_sockops", "maps/pods"]) {
        assert.ok(existsSync(join(pinDir(), pin)), pin);
      }
      const rig = new Rig(network);
      assert.deepEqual(rig.datapath.adopted(), [uidOf(network.a)]);
      assert.equal(await python(`dial("10.1.2.2", 8080)`), "ECONNREFUSED");
      await rig.enrol(network.a);
      assert.match(await python(`dial("10.1.2.2", 8080)`), / original=10.1.2.2:8080$/);
      await rig.close();
    });

    it("is let go by forget(), and then reaches the other pod directly", async () => {
      const rig = new Rig(network);
      rig.datapath.forget(uidOf(network.a));
      assert.deepEqual(rig.datapath.adopted(), []);
      assert.match(await python(`dial("10.1.2.2", 8080)`), / app accept=10.1.1.2:/);
      await rig.close();
    });
  });

  describe("the pod that is connected to", () => {
    beforeEach(() => enrolAndDie("b"));
    afterEach(() => new Rig(network).close());

    it("refuses, whether somebody listens there or not", async () => {
      const lines = await python(`
for host in ("10.1.2.2", "fd00:2::2", "::ffff:10.1.2.2"):
    for port in (8080, 9, 15008): dial(host, port)`);
      assert.deepEqual(lines.split("\n"), new Array(9).fill("ECONNREFUSED"));
    });

    it("counts what it refuses", async () => {
      const rig = new Rig(network);
      const before = rig.datapath.counters().inNoListener;
      await python(`dial("10.1.2.2", 8080)`);
      assert.equal(rig.datapath.counters().inNoListener - before, 1);
      assert.equal(rig.handoffEntries(), 0);
      await rig.close();
    });
  });

  describe("openDatapath() on the pins of a dead agent", () => {
    it("never lets a connection through while it loads", async () => {
      await enrolAndDie("a");
      const prober = network.a.start("/usr/bin/python3", [
        "-c",
        `${PYTHON}
import signal
running, tried, bypassed = True, 0, 0
def stop(*_):
    global running
    running = False
signal.signal(signal.SIGTERM, stop)
print("up", flush=True)
while running:
    s = socket.socket()
    s.settimeout(5)
    tried += 1
    try:
        s.connect(("10.1.2.2", 8080))
        if b"app" in s.recv(99): bypassed += 1
    except OSError: pass
    s.close()
print("many" if tried > 100 else "few", "bypassed", bypassed)`,
      ]);
      let output = "";
      prober.stdout?.on("data", (data) => {
        output += data;
      });
      await until("the prober runs", () => output.includes("up"));
      for (let restart = 0; restart < 10; restart++) {
        const rig = new Rig(network);
        const { servers } = await rig.enrol(network.a);
        for (const server of servers) server.close();
        rig.datapath.close();
      }
      prober.kill("SIGTERM");
      await once(prober, "close");
      assert.equal(output, "up\nmany bypassed 0\n");
      await new Rig(network).close();
    });

    it("refuses pins of another cgroup, and leaves them", async () => {
      await enrolAndDie("a");
      const elsewhere = { name: network.name, cgroupRoot: cgroup2Root() };
      assert.throws(() => new Rig(elsewhere), { code: "SETTINGS_INVALID" });
      assert.equal(await python(`dial("10.1.2.2", 8080)`), "ECONNREFUSED");
      await new Rig(network).close();
    });
  });
});
