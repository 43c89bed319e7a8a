import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { LocalMesh } from "../support/local-mesh.ts";
import { client, manifests, namespace, pod, server, service } from "../support/manifests.ts";

/** With an address of IPv4 alone. */
const SINGLE = JSON.stringify({
  apiVersion: "v1",
  kind: "Service",
  metadata: { name: "single", namespace: "inside" },
  spec: { selector: { app: "web" }, ports: [{ port: 8080 }], clusterIP: "10.96.9.9" },
});

const MANIFESTS = manifests(
  namespace("inside"),
  namespace("outside", "none"),
  server("inside", "web", "n1"),
  service("inside", "web", [8080]),
  client("inside", "caller", "n1"),
  pod("inside", "alone", { node: "n1", annotations: { "ambient.istio.io/dns-capture": "false" } }),
  client("outside", "stranger", "n1"),
  SINGLE,
);

/**
 * `ask(name, type, server)` prints who answered, the code, and the answers, over UDP or TCP; by
 * hand, since a resolver would hide what is between it and the nameserver.
 */
const DIG = `
import socket, struct
def query(name, type):
    labels = b"".join(bytes([len(l)]) + l.encode() for l in name.split("."))
    return struct.pack("!6H", 7, 0x100, 1, 0, 0, 0) + labels + b"\\0" + struct.pack("!2H", type, 1)
def skip(m, at):
    while m[at]:
        if m[at] >= 192: return at + 2
        at += m[at] + 1
    return at + 1
def read(m):
    at = skip(m, 12) + 4; found = []
    for _ in range(struct.unpack_from("!H", m, 6)[0]):
        at = skip(m, at); type, _, ttl, size = struct.unpack_from("!2HIH", m, at); at += 10
        data = m[at:at + size]; at += size
        if type in (1, 28): data = socket.inet_ntop(socket.AF_INET if type == 1 else socket.AF_INET6, data)
        found.append("%s ttl=%d" % (data if type in (1, 28) else "type%d" % type, ttl))
    return "rcode=%d %s" % (m[3] & 15, ", ".join(found) or "nothing")
def udp(name, type=1, host="10.96.0.10"):
    s = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
    s.settimeout(10); s.sendto(query(name, type), (host, 53))
    m, peer = s.recvfrom(4096); print(peer[0], read(m))
def tcp(name, type=1, host="10.96.0.10"):
    s = socket.create_connection((host, 53), 10); q = query(name, type)
    s.sendall(struct.pack("!H", len(q)) + q)
    f = s.makefile("rb"); print("tcp", read(f.read(struct.unpack("!H", f.read(2))[0])))
`;

let mesh: LocalMesh;

before(async () => {
  mesh = await LocalMesh.up({ name: "dns", nodes: 1, manifests: MANIFESTS });
});
after(async () => {
  await mesh?.down();
});

async function run(from: string, ...command: readonly string[]): Promise<string> {
  const { code, stdout, stderr } = await mesh.exec(from, command);
  assert.equal(code, 0, `${command.join(" ")} from ${from}: ${stderr}${stdout}`);
  return stdout.trim();
}

async function dig(from: string, calls: string): Promise<readonly string[]> {
  return (await run(from, "python3", "-c", DIG + calls)).split("\n");
}

const CALLER = "inside/caller";
const NAME = "single.inside.svc.cluster.local";
/** The agent's answers live for 30 s, those of the cluster DNS for 5 s. */
const HIT = "rcode=0 10.96.9.9 ttl=30";

describe("DNS of a pod", () => {
  it("is answered by the agent for names of the mesh, over UDP and TCP", async () => {
    const calls = `udp("${NAME}"); tcp("${NAME}"); udp("single")`;
    const expected = [`10.96.0.10 ${HIT}`, `tcp ${HIT}`, `10.96.0.10 ${HIT}`];
    assert.deepEqual(await dig(CALLER, calls), expected);
  });

  it("knows a name with a search domain of the pod behind it by its own name", async () => {
    assert.deepEqual(await dig(CALLER, `udp("${NAME}.svc.cluster.local")`), [
      "10.96.0.10 rcode=0 type5 ttl=30, 10.96.9.9 ttl=30",
    ]);
  });

  it("has no address, and no error, where a name lacks the family", async () => {
    assert.deepEqual(await dig(CALLER, `udp("${NAME}", 28)`), ["10.96.0.10 rcode=0 nothing"]);
  });

  it("asks the cluster DNS for everything else, over UDP and TCP", async () => {
    const calls = `udp("no.such.name"); tcp("no.such.name"); udp("${NAME}", 16)`;
    assert.deepEqual(await dig(CALLER, calls), [
      "10.96.0.10 rcode=3 nothing",
      "tcp rcode=3 nothing",
      "10.96.0.10 rcode=0 nothing",
    ]);
  });

  it("answers as the server that was asked, whichever that is", async () => {
    const calls = `udp("${NAME}", host="192.0.2.1"); udp("${NAME}", host="fd96::a")`;
    assert.deepEqual(await dig(CALLER, calls), [`192.0.2.1 ${HIT}`, `fd96::a ${HIT}`]);
  });

  it("serves the resolver of the C library, short names included", async () => {
    for (const name of ["single", "single.inside", NAME]) {
      assert.match(await run(CALLER, "getent", "ahostsv4", name), /^10\.96\.9\.9 /);
    }
    assert.match(await run(CALLER, "getent", "ahosts", "web"), /^(fd96::|10\.96\.)/);
  });

  it("leaves the queries of pods alone that say so, or are not in the mesh", async () => {
    for (const from of ["inside/alone", "outside/stranger"]) {
      const [answer] = await dig(from, `udp("${NAME}")`);
      assert.equal(answer, "10.96.0.10 rcode=0 10.96.9.9 ttl=5");
    }
  });

  it("is counted", async () => {
    const text = await mesh.getFromNode("n1", 15020, "/metrics");
    const labels = 'source_canonical_service="caller",source_canonical_revision="latest"';
    for (const metric of ["requests", "upstream_requests"]) {
      const pattern = `^istio_dns_${metric}_total\\{request_query_type="A",request_protocol="udp",${labels}\\} [1-9]`;
      assert.match(text, new RegExp(pattern, "m"));
    }
    assert.match(text, /^aquifer_datapath_dns_events_total\{event="captured"\} [1-9]/m);
  });
});
