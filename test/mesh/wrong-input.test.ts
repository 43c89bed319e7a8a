import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { after, afterEach, before, describe, it } from "node:test";
import { formatProblem } from "#core/local-api.ts";
import { TestAuthority } from "../support/certificates.ts";
import { eventually, finish, LocalMesh } from "../support/local-mesh.ts";
import { client, manifests, namespace, policy, server, service } from "../support/manifests.ts";
import type { CertificateAttempt, Outcome, TunnelAttempt } from "./apps/intruder.ts";

const MANIFESTS = manifests(
  namespace("bank"),
  server("bank", "vault", "n1"),
  service("bank", "vault", [8080]),
  client("bank", "clerk", "n2"),
);
const INTRUDER = new URL("apps/intruder.ts", import.meta.url).pathname;
const VAULT = "spiffe://cluster.local/ns/bank/sa/vault";
const CLERK = "spiffe://cluster.local/ns/bank/sa/clerk";

let mesh: LocalMesh;

before(async () => {
  mesh = await LocalMesh.up({ name: "wrong", manifests: MANIFESTS });
});
after(async () => {
  await mesh?.down();
});

/** Whatever was wrong, what was right goes on. */
afterEach(async () => {
  const command = ["curl", "-s", "-m", "5", "http://vault:8080/"];
  await eventually("the vault to answer", async () => {
    return (await mesh.exec("bank/clerk", command)).code === 0;
  });
});

/** Applies YAML: what the runtime and control find wrong with it is in the answer already. */
async function problemOf(yaml: string, pattern: RegExp): Promise<string> {
  const answer = await mesh.apply(yaml);
  const texts = answer.problems.map((problem) => formatProblem(problem));
  const found = texts.filter((text) => pattern.test(text));
  assert.equal(found.length, 1, `problems like ${pattern} among:\n${texts.join("\n")}`);
  return found[0] ?? "";
}

async function intrude(
  node: string,
  attempt: CertificateAttempt | TunnelAttempt,
): Promise<Outcome> {
  const { nodes } = await mesh.status();
  const netns = nodes.find(({ name }) => name === node)?.netns ?? "";
  const child = spawn("ip", ["netns", "exec", netns, process.execPath, INTRUDER]);
  child.stdin.end(JSON.stringify(attempt));
  const { stdout, stderr } = await finish(child, 30_000);
  assert.notEqual(stdout, "", stderr);
  return JSON.parse(stdout) as Outcome;
}

async function askAs(node: string, identity: string, token?: string): Promise<Outcome> {
  const { stateDir } = await mesh.status();
  return intrude(node, {
    kind: "certificate",
    url: "https://10.200.0.2:15012",
    rootsPem: readFileSync(join(stateDir, "control/root-cert.pem"), "utf8"),
    token: token ?? readFileSync(join(stateDir, "nodes", node, "token"), "utf8"),
    identity,
  });
}

async function rootsPem(): Promise<string> {
  const { stateDir } = await mesh.status();
  return readFileSync(join(stateDir, "control/root-cert.pem"), "utf8");
}

describe("YAML that cannot be understood", () => {
  it("is told of with its line where it is no YAML", async () => {
    await problemOf("kind: Namespace\nmetadata: {name: [x}\n", /test\.yaml:2: .*YAML/);
  });

  it("is told of with object and field where a policy has an unknown field", async () => {
    const yaml = policy("bank", "odd", "vault", "DENY", [{ form: [] }]);
    const text = await problemOf(yaml, /AuthorizationPolicy bank\/odd.*form/);
    assert.match(text, /test\.yaml:\d+/);
    const { problems } = await mesh.status();
    assert.equal(problems.filter(({ object }) => object.endsWith("bank/odd")).length, 1);
    await mesh.delete(yaml);
  });

  it("is told of where a policy has a block that is none", async () => {
    const rules = [{ from: [{ source: { ipBlocks: ["10.0.0.0/99"] } }] }];
    const yaml = policy("bank", "blocked", "vault", "DENY", rules);
    await problemOf(yaml, /AuthorizationPolicy bank\/blocked.*ipBlocks.*10\.0\.0\.0\/99/);
    await mesh.delete(yaml);
  });

  it("leaves the last good version in force where a change breaks a policy", async () => {
    const good = policy("bank", "edited", "vault", "DENY", [
      { from: [{ source: { serviceAccounts: ["thief"] } }] },
    ]);
    assert.deepEqual((await mesh.apply(good)).problems, []);
    await eventually("the agent to know the policy", async () => {
      return (await mesh.getFromNode("n1", 15_000, "/config_dump")).includes('"edited"');
    });
    const bad = policy("bank", "edited", "vault", "DENY", [{ from: [{ source: { no: [] } }] }]);
    await problemOf(bad, /AuthorizationPolicy bank\/edited.*last good/);
    const dump = await mesh.getFromNode("n1", 15_000, "/config_dump");
    await mesh.delete(good);
    assert.match(dump, /thief/);
  });

  it("names both services where two want one address", async () => {
    const { services } = await mesh.status();
    const taken = services.find(({ name }) => name === "vault")?.addresses[0] ?? "";
    const yaml = JSON.stringify({
      apiVersion: "v1",
      kind: "Service",
      metadata: { name: "double", namespace: "bank" },
      spec: { clusterIP: taken, selector: { app: "vault" }, ports: [{ port: 80 }] },
    });
    const text = await problemOf(yaml, /Service bank\/double/);
    assert.match(text, new RegExp(taken.replaceAll(".", "\\.")));
    assert.match(text, /bank\/vault/);
    await mesh.delete(yaml);
  });
});

describe("a tunnel", () => {
  let material: { chainPem: string; keyPem: string; rootsPem: string };

  before(async () => {
    const { chainPem = "", keyPem = "", error } = await askAs("n2", CLERK);
    assert.equal(error, undefined);
    material = { chainPem, keyPem, rootsPem: await rootsPem() };
  });

  const ipOf = async (name: string) => (await mesh.pod(name)).addresses[0] ?? "";

  it("is accepted with a certificate of the mesh", async () => {
    const ip = await ipOf("bank/vault");
    const attempt = { kind: "tunnel", ip, authority: `${ip}:8080`, ...material } as const;
    assert.deepEqual(await intrude("n2", attempt), { status: 200 });
  });

  it("is answered with 400 where it names another pod's address", async () => {
    const [ip, other] = [await ipOf("bank/vault"), await ipOf("bank/clerk")];
    const attempt = { kind: "tunnel", ip, authority: `${other}:8080`, ...material } as const;
    assert.deepEqual(await intrude("n2", attempt), { status: 400 });
  });

  it("is refused with a certificate of another authority, and with an expired one", async () => {
    const ip = await ipOf("bank/vault");
    const foreign = await TestAuthority.create("Another mesh");
    for (const options of [{}, { notAfterMs: Date.now() - 60_000 }]) {
      const issued = await foreign.issue({ uris: [CLERK], ...options });
      const { status, error } = await intrude("n2", {
        kind: "tunnel",
        ip,
        authority: `${ip}:8080`,
        chainPem: issued.certificatePem,
        keyPem: issued.privateKeyPem,
        rootsPem: material.rootsPem,
      });
      assert.equal(status, undefined);
      assert.notEqual(error, undefined);
    }
    await mesh.waitForLog("n1", "a refused handshake", (line) => {
      return /certificate|handshake/i.test(JSON.stringify(line));
    });
  });

  it("does not speak plaintext", async () => {
    const url = `http://${await ipOf("bank/vault")}:15008/`;
    const { nodes } = await mesh.status();
    const netns = nodes.find(({ name }) => name === "n2")?.netns ?? "";
    const child = spawn("ip", ["netns", "exec", netns, "curl", "-sS", "-m", "10", url]);
    const { code, stdout } = await finish(child, 20_000);
    assert.notEqual(code, 0);
    assert.notEqual(code, 28, "it is closed at once, not left to time out");
    assert.equal(stdout, "");
  });
});

describe("the certificate authority", () => {
  it("signs for what runs on the node that asks", async () => {
    const { chainPem, error } = await askAs("n1", VAULT);
    assert.equal(error, undefined);
    assert.match(chainPem ?? "", /BEGIN CERTIFICATE/);
  });

  it("refuses an identity of another node, and names it", async () => {
    const { chainPem, error } = await askAs("n2", VAULT);
    assert.equal(chainPem, undefined);
    assert.match(error ?? "", /vault/);
  });

  it("refuses an identity of another trust domain", async () => {
    const { error } = await askAs("n1", "spiffe://elsewhere/ns/bank/sa/vault");
    assert.match(error ?? "", /elsewhere/);
  });

  it("refuses a token that it did not issue", async () => {
    const { stateDir } = await mesh.status();
    const [head, , signature] = readFileSync(join(stateDir, "nodes/n1/token"), "utf8").split(".");
    const claims = { sub: "node:n1", aud: "istio-ca", exp: 4_102_444_800 };
    const body = Buffer.from(JSON.stringify(claims)).toString("base64url");
    for (const token of ["nonsense", `${head}.${body}.${signature}`]) {
      const { chainPem, error } = await askAs("n1", VAULT, token);
      assert.equal(chainPem, undefined);
      assert.match(error ?? "", /token/i);
    }
  });

  it("keeps its keys to itself", async () => {
    const { stateDir } = await mesh.status();
    const { stdout } = await finish(
      spawn("find", [join(stateDir, "control"), "-name", "*key*", "-perm", "/077"]),
      10_000,
    );
    assert.equal(stdout, "");
  });
});
