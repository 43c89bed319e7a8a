import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { parseIp } from "#core/ip.ts";
import type { PolicyRow, PolicyVerdict } from "../../agent/kernel/layout.ts";
import { makeNetwork, type TestNetwork, TestPod } from "../support/netns.ts";
import { waitFor } from "../support/wait.ts";
import { PYTHON, Rig, uidOf } from "./rig.ts";

/** What the application in pod b runs: it answers with what it sees of its peer. */
const APPLICATION = `
both = lambda s: s.setsockopt(41, 26, 0)
for port in (80, 81, 82, 83): serve("::", port, 100000, prepare=both)
silent = socket.create_server(("0.0.0.0", 84))
def echo(server):
    while True:
        c, _ = server.accept()
        got = b""
        while True:
            part = c.recv(65536)
            if not part: break
            got += part
        c.sendall(got); c.close()
echoing = socket.create_server(("0.0.0.0", 85))
threading.Thread(target=echo, args=(echoing,), daemon=True).start()
print("ready", flush=True)
time.sleep(60)
`;

describe("the direct path", () => {
  let network: TestNetwork;
  let rig: Rig;
  let source: number;
  let destination: number;

  before(async () => {
    network = makeNetwork("dir");
    rig = new Rig(network);
    await rig.enrol(network.a);
    await rig.enrol(network.b);
    source = rig.direct.newId();
    destination = rig.direct.newId();
    const application = network.b.start("/usr/bin/python3", ["-c", PYTHON + APPLICATION]);
    await new Promise((resolve) => application.stdout?.once("data", resolve));
    admit();
  });
  after(async () => {
    await rig?.close();
    network?.close();
  });

  const { a, b } = { a: () => network.a, b: () => network.b };
  const python = (program: string) => a().python(PYTHON + program);
  const admit = () => {
    rig.direct.admit(uidOf(a()), source);
    rig.direct.admit(uidOf(b()), destination);
    rig.direct.replacePolicies([row(80, "allow"), row(81, "deny"), row(82, "agent")]);
  };
  const row = (port: number, verdict: PolicyVerdict): PolicyRow => {
    return { destination, source, port, verdict, rule: 0 };
  };
  const counted = async (run: () => Promise<unknown>) => {
    const from = rig.datapath.counters();
    await run();
    const to = rig.datapath.counters();
    return Object.fromEntries(
      Object.entries(to)
        .map(([name, count]) => [name, count - from[name as keyof typeof from]] as const)
        .filter(([, count]) => count > 0),
    );
  };
  const isEmpty = () =>
    waitFor("no entry is left", () => rig.attestEntries() + rig.handoffEntries() === 0);

  for (const [what, dialled, own] of [
    ["IPv4", "10.1.2.2", "::ffff:10.1.1.2"],
    ["IPv6", "fd00:2::2", "fd00:1::2"],
    ["mapped IPv4", "::ffff:10.1.2.2", "::ffff:10.1.1.2"],
  ] as const) {
    it(`takes ${what} to the application, which sees its real peer`, async () => {
      let line = "";
      const counts = await counted(async () => {
        line = await python(`dial("${dialled}", 80)`);
      });
      const [, port] = /^name=\S+:(\d+) /.exec(line) ?? [];
      assert.ok(line.endsWith(` app accept=[${own}]:${port} peer=[${own}]:${port}`), line);
      assert.deepEqual(counts, { direct: 1, attested: 1, inDirect: 1 });
      await isEmpty();
    });
  }

  it("ends what policy denies at connect(2)", async () => {
    const counts = await counted(async () => {
      assert.equal(await python(`dial("10.1.2.2", 81); dial("fd00:2::2", 81)`), "EPERM\nEPERM");
    });
    assert.deepEqual(counts, { denied: 2 });
  });

  it("leaves to the agent what the table does not decide", async () => {
    const lines = await python(`dial("10.1.2.2", 82); dial("10.1.2.2", 83); dial("10.9.9.9", 80)`);
    for (const line of lines.split("\n")) assert.match(line, / out4 .* original=10\./);
  });

  it("leaves the mesh's own ports to the agent, whatever the table says", async () => {
    const any = { destination, source: 0, port: 0, verdict: "allow", rule: 0 } as const;
    rig.direct.replacePolicies([any]);
    const lines = await python(`for port in (15001, 15006, 15008): dial("10.1.2.2", port)`);
    for (const line of lines.split("\n")) assert.match(line, / out4 .* original=10\.1\.2\.2:150/);
    admit();
  });

  it("tries the most specific entry first", async () => {
    const rows: readonly PolicyRow[] = [
      { destination, source, port: 80, verdict: "allow", rule: 0 },
      { destination, source, port: 0, verdict: "deny", rule: 0 },
      { destination, source: 0, port: 81, verdict: "allow", rule: 0 },
    ];
    rig.direct.replacePolicies(rows);
    assert.match(await python(`dial("10.1.2.2", 80)`), / app /);
    assert.equal(await python(`dial("10.1.2.2", 81)`), "EPERM");
    rig.direct.replacePolicies(rows.filter((each) => each.source === 0));
    assert.match(await python(`dial("10.1.2.2", 81)`), / app /);
    assert.match(await python(`dial("10.1.2.2", 80)`), / out4 /);
    admit();
  });

  it("takes a service's address to an endpoint and shows the service's", async () => {
    const address = (ip: string, port: number) => ({ ip: parseIp(ip), port });
    rig.direct.replaceServices([
      { address: address("10.96.0.10", 8080), local: [address("10.1.2.2", 80)], total: 1 },
      { address: address("fd96::10", 8080), local: [address("fd00:2::2", 80)], total: 1 },
      { address: address("10.96.0.11", 8080), local: [address("10.1.2.2", 81)], total: 1 },
      { address: address("10.96.0.12", 8080), local: [], total: 1 },
    ]);
    const [v4, v6, mapped, denied, elsewhere] = (
      await python(`
for host in ("10.96.0.10", "fd96::10", "::ffff:10.96.0.10", "10.96.0.11", "10.96.0.12"): dial(host, 8080)
`)
    ).split("\n");
    assert.match(v4 ?? "", / peer=10.96.0.10:8080 app accept=\[::ffff:10.1.1.2\]/);
    assert.match(v6 ?? "", / peer=\[fd96::10\]:8080 app accept=\[fd00:1::2\]/);
    assert.match(mapped ?? "", / peer=\[::ffff:10.96.0.10\]:8080 app accept=/);
    assert.equal(denied, "EPERM");
    assert.match(elsewhere ?? "", / out4 .* original=10.96.0.12:8080$/);
    rig.direct.replaceServices([]);
    assert.match(await python(`dial("10.96.0.10", 8080)`), / out4 .* original=10.96.0.10:8080$/);
    await isEmpty();
  });

  it("draws endpoints of other nodes in proportion, for the agent", async () => {
    const local = [{ ip: parseIp("10.1.2.2"), port: 80 }];
    const service = { address: { ip: parseIp("10.96.0.10"), port: 8080 }, local, total: 2 };
    rig.direct.replaceServices([service]);
    const lines = (await python(`for _ in range(100): dial("10.96.0.10", 8080)`)).split("\n");
    const direct = lines.filter((line) => line.includes(" app ")).length;
    assert.ok(direct > 20 && direct < 80, `${direct} of 100`);
    rig.direct.replaceServices([]);
  });

  it("vouches for nobody who borrows an address", async () => {
    // Another namespace that has pod a's address, on the way to pod b; and pod a with a third one.
    const counts = await counted(async () => {
      const forged = await python(`
os.system("ip addr add 10.1.1.77/32 dev lo")
dial("10.1.2.2", 80, prepare=lambda s: s.bind(("10.1.1.77", 0)))
os.system("ip addr del 10.1.1.77/32 dev lo")
`);
      assert.match(forged, /^name=10.1.1.77:\d+ .* in4 peer=10.1.1.77:/);
    });
    assert.equal(counts.forged, 1);
    assert.equal(counts.inDirect, undefined);
    const thief = new TestPod(`${network.name}-router`, `${network.cgroupRoot}/agent`, 0);
    const stolen = await thief.python(`${PYTHON}
os.system("ip addr add 10.1.1.2/32 dev lo")
s = socket.socket(); s.settimeout(1); s.bind(("10.1.1.2", 0))
try: dial("10.1.2.2", 80, s)
finally: os.system("ip addr del 10.1.1.2/32 dev lo")
`);
    thief.netns.close();
    assert.match(stolen, / in4 peer=10.1.1.2:/);
  });

  it("follows the socket's namespace, not the process's cgroup", async () => {
    const line = await python(`
os.system("mkdir -p ${a().cgroup}/inner")
open("${a().cgroup}/inner/cgroup.procs", "w").write(str(os.getpid()))
dial("10.1.2.2", 80); dial("10.1.2.2", 81)
open("${a().cgroup}/cgroup.procs", "w").write(str(os.getpid()))
os.rmdir("${a().cgroup}/inner")
`);
    assert.match(line, / app .*\nEPERM$/);
  });

  it("ends a connection that is named by its ends, and leaves the listener", async () => {
    const child = a().start("/usr/bin/python3", [
      "-c",
      `${PYTHON}
s = socket.socket(); s.connect(("10.1.2.2", 84)); print(s.getsockname()[1], flush=True)
try: print(s.recv(1))
except OSError as error: print(errno.errorcode[error.errno], flush=True)
`,
    ]);
    const lines: string[] = [];
    child.stdout?.on("data", (data) => lines.push(String(data).trim()));
    rig.direct.replacePolicies([row(84, "allow")]);
    const port = await waitFor("the connection", () => Number(lines[0]));
    const source = { ip: a().ip4, port };
    const destination = { ip: b().ip4, port: 84 };
    const [open] = [...rig.direct.connections()];
    assert.deepEqual(open, { source, destination, sourceNetns: a().netns.cookie() });
    assert.equal(b().netns.destroyTcp(destination, { ...source, port: 1 }), false);
    assert.equal(b().netns.destroyTcp(destination, source), true);
    child.kill("SIGKILL");
    await isEmpty();
    admit();
    assert.match(await python(`dial("10.1.2.2", 80)`), / app /);
  });

  it("takes the connections of a pod to the agent once it is withdrawn", async () => {
    rig.direct.withdraw(uidOf(b()));
    assert.match(await python(`dial("10.1.2.2", 80)`), / out4 /);
    admit();
    rig.direct.withdraw(uidOf(a()));
    assert.match(await python(`dial("10.1.2.2", 80)`), / out4 /);
    admit();
  });

  it("behaves as TCP does: halves, urgent data, resets, much data to a slow reader", async () => {
    rig.direct.replacePolicies([row(85, "allow")]);
    const line = await python(`
s = socket.create_connection(("10.1.2.2", 85), 10)
data = os.urandom(1 << 20); s.sendall(data); s.send(b"!", socket.MSG_OOB); s.shutdown(socket.SHUT_WR)
back = b""
while len(back) < len(data):
    time.sleep(0.001); part = s.recv(65536)
    if not part: break
    back += part
print(back == data, s.recv(1) == b"")
`);
    assert.equal(line, "True True");
    admit();
    await isEmpty();
  });

  it("never lets through what both the old and the new table deny", async () => {
    const attempt = python(`
seen = {80: set(), 81: set()}
for _ in range(5000):
    for port in (80, 81):
        s = socket.socket(); s.settimeout(5)
        try: s.connect(("10.1.2.2", port)); seen[port].add("open")
        except OSError as error: seen[port].add(errno.errorcode[error.errno])
        s.close()
print(sorted(seen[81]), "open" in seen[80])
`);
    let isOver = false;
    const result = attempt.finally(() => {
      isOver = true;
    });
    let swaps = 0;
    await waitFor("the attempts", () => {
      const rest = swaps++ % 2 === 0 ? [row(80, "allow")] : [row(80, "deny"), row(83, "allow")];
      rig.direct.replacePolicies([row(81, "deny"), ...rest]);
      return isOver;
    });
    assert.equal(await result, "['EPERM'] True");
    assert.ok(swaps > 2, `${swaps} swaps`);
    admit();
    await isEmpty();
  });

  // Last: the agent is gone.
  it("goes on, and decides, without an agent", async () => {
    rig.datapath.close();
    assert.match(await python(`dial("10.1.2.2", 80)`), / app /);
    assert.equal(await python(`dial("10.1.2.2", 81)`), "EPERM");
    rig.datapath = rig.open();
    assert.match(await python(`dial("10.1.2.2", 80)`), / app /);
  });
});
