import assert from "node:assert/strict";
import { once } from "node:events";
import { existsSync, mkdirSync, rmdirSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { openDatapath } from "../../agent/kernel/datapath.ts";
import { until } from "../support/kernel.ts";
import { makeNetwork, type TestNetwork, TestPod } from "../support/netns.ts";
import { OBJECT_DIR, PYTHON, Rig } from "./rig.ts";

const SOURCE4 = "169.254.7.127";
const SOURCE6 = "fd16:9254:7127:1337:ffff:ffff:ffff:ffff";
/** The pod's application listens on both; a probe is declared for the first. */
const DECLARED = 8080;
const OTHER = 8081;

describe("probes from the node", () => {
  let network: TestNetwork;
  let rig: Rig;
  /** The same namespace, as its prober and as its other processes. */
  let prober: TestPod;
  let node: TestPod;

  before(async () => {
    network = makeNetwork("probe");
    const { name, cgroupRoot } = network;
    prober = new TestPod(`${name}-router`, join(cgroupRoot, "prober"), 0);
    node = new TestPod(`${name}-router`, join(cgroupRoot, "node"), 0);
    rig = new Rig(network, { cgroup: prober.cgroup, netnsPath: prober.netnsPath });
    await rig.enrol(network.b, [network.b.ip4, network.b.ip6], { probePorts: [DECLARED] });
    const app = network.b.start("/usr/bin/python3", [
      "-c",
      `${PYTHON}
for port in (${DECLARED}, ${OTHER}): serve("::", port, 999)
print("up", flush=True); time.sleep(600)`,
    ]);
    if (app.stdout) await once(app.stdout, "data");
  });
  after(async () => {
    await rig?.close();
    prober?.netns.close();
    node?.netns.close();
    network?.close();
  });

  for (const [kind, dialled, source, shown] of [
    ["IPv4", "10.1.2.2", SOURCE4, `::ffff:${SOURCE4}`],
    ["IPv6", "fd00:2::2", SOURCE6, SOURCE6],
    ["mapped", "::ffff:10.1.2.2", `::ffff:${SOURCE4}`, `::ffff:${SOURCE4}`],
  ] as const) {
    it(`reach the application on a declared port, from their own address (${kind})`, async () => {
      const before = rig.datapath.guardCounters();
      const line = await prober.python(`${PYTHON}dial("${dialled}", ${DECLARED})`);
      const name = source.includes(":") ? `[${source}]` : source;
      assert.ok(line.startsWith(`name=${name}:`), line);
      assert.ok(line.includes(` app accept=[${shown}]:`), line);
      const { probeMarked, probeLetIn } = rig.datapath.guardCounters();
      assert.equal(probeMarked, before.probeMarked + 1);
      assert.equal(probeLetIn, before.probeLetIn + 1);
    });

    it(`go to the agent on any other port, from the node's address (${kind})`, async () => {
      const line = await prober.python(`${PYTHON}dial("${dialled}", ${OTHER})`);
      assert.match(line, / in[46] peer=(10\.1\.2\.1|\[fd00:2::1\]):/);
    });

    it(`are not what other processes of the node send (${kind})`, async () => {
      const line = await node.python(`${PYTHON}dial("${dialled}", ${DECLARED})`);
      assert.match(line, / in[46] peer=(10\.1\.2\.1|\[fd00:2::1\]):/);
    });
  }

  it("open no undeclared port to a process that takes the address itself", async () => {
    const bind = (ip: string) => `lambda s: s.bind(("${ip}", 0))`;
    const before = rig.datapath.guardCounters().probeUndeclared;
    const lines = await node.python(`${PYTHON}
dial("10.1.2.2", ${OTHER}, None, ${bind(SOURCE4)})
dial("fd00:2::2", ${OTHER}, None, ${bind(SOURCE6)})
dial("10.1.2.2", 15008, None, ${bind(SOURCE4)})`);
    const [over4 = "", over6 = "", tunnel = ""] = lines.split("\n");
    assert.match(over4, / in4 peer=169\.254\.7\.127:/);
    assert.match(over6, / in6 peer=\[fd16:/);
    assert.match(tunnel, / hbone4 /);
    assert.equal(rig.datapath.guardCounters().probeUndeclared, before + 2);
  });

  it("leave a socket alone that is bound, and say so", async () => {
    const before = rig.datapath.guardCounters().probeNotBound;
    const program = `${PYTHON}dial("10.1.2.2", ${DECLARED}, None, lambda s: s.bind(("10.1.2.1", 0)))`;
    assert.match(await prober.python(program), / in4 peer=10\.1\.2\.1:/);
    assert.equal(rig.datapath.guardCounters().probeNotBound, before + 1);
  });

  it("cannot be forged by a pod that gives itself the address", async () => {
    const { a } = network;
    for (const address of [`${SOURCE4}/32`, `${SOURCE6}/128`]) {
      const { status } = await a.run("/bin/sh", [
        "-c",
        `exec ip address add ${address} dev lo $(case ${address} in *:*) echo nodad;; esac)`,
      ]);
      assert.equal(status, 0);
    }
    const lines = await a.python(`${PYTHON}
for host, source in (("10.1.2.2", "${SOURCE4}"), ("fd00:2::2", "${SOURCE6}")):
    s = socket.socket(family(host)); s.settimeout(0.7); s.bind((source, 0))
    try: s.connect((host, ${DECLARED})); print("connected", s.getsockname())
    except OSError as error: print(type(error).__name__)`);
    assert.deepEqual(lines.split("\n"), ["TimeoutError", "TimeoutError"]);
  });

  it("follow a prober whose cgroup is made anew", async () => {
    const cgroup = join(network.cgroupRoot, "service");
    const pinDir = `${rig.pinDir}-anew`;
    const { cgroupRoot } = network;
    const datapath = openDatapath({
      ...{ pinDir, cgroupRoot, objectDir: OBJECT_DIR },
      probes: { cgroup, netnsPath: prober.netnsPath },
    });
    try {
      assert.equal(datapath.refreshProbes(), false);
      for (let start = 0; start < 2; start++) {
        mkdirSync(cgroup);
        assert.equal(datapath.refreshProbes(), true);
        assert.equal(datapath.refreshProbes(), true);
        rmdirSync(cgroup);
        assert.equal(datapath.refreshProbes(), false);
      }
    } finally {
      datapath.uninstall();
      if (existsSync(cgroup)) rmdirSync(cgroup);
    }
    assert.equal(existsSync(pinDir), false);
    // The other agent's addresses went with it: they are put back for the tests that follow.
    rig.datapath.close();
    rig.datapath = rig.open();
    assert.match(await prober.python(`${PYTHON}dial("10.1.2.2", ${DECLARED})`), / app /);
  });

  it("end with the agent's installation, addresses and all", async () => {
    const addresses = async () => (await node.run("ip", ["address", "show", "dev", "lo"])).stdout;
    assert.ok((await addresses()).includes(SOURCE4));
    assert.ok((await addresses()).includes(SOURCE6));
    rig.datapath.uninstall();
    assert.ok(!(await addresses()).includes(SOURCE4));
    assert.ok(!(await addresses()).includes(SOURCE6));
    rig.datapath = rig.open();
    await until("the node is as before", async () => (await addresses()).includes(SOURCE6));
  });
});
