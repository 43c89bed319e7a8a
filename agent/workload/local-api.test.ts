import assert from "node:assert/strict";
import { mkdtempSync, rmSync, statSync, writeFileSync } from "node:fs";
import { request } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, it, type TestContext } from "node:test";
import { MeshError } from "#core/errors.ts";
import { Loggers, parseLogLevels } from "../log.ts";
import { serveLocalApi } from "./local-api.ts";
import type { Pod, PodUid } from "./pod.ts";

const BODY = {
  name: "cart-1",
  namespace: "shop",
  serviceAccount: "cart",
  addresses: ["10.244.1.5"],
  netns: "/run/netns/x",
};

interface Answer {
  readonly status: number | undefined;
  readonly text: string;
}

async function serve(t: TestContext, failure?: Error) {
  const dir = mkdtempSync(join(tmpdir(), "local-api-"));
  const path = join(dir, "agent.sock");
  const pods = new Map<PodUid, Pod>();
  const loggers = new Loggers(
    { format: "json", levels: parseLogLevels("off") },
    { write: () => undefined },
  );
  const registry = {
    put: (pod: Pod) => {
      if (failure) throw failure;
      pods.set(pod.uid, pod);
    },
    delete: (uid: PodUid) => void pods.delete(uid),
    list: () => [...pods.values()].map((pod) => ({ pod, state: "up" as const, reason: undefined })),
  };
  const start = () => serveLocalApi(path, registry, loggers.for("enrolment"));
  const api = await start();
  t.after(async () => {
    await api.close();
    rmSync(dir, { recursive: true });
  });
  const ask = (method: string, url: string, body?: string): Promise<Answer> =>
    new Promise((resolve, reject) => {
      const headers = { "content-type": "application/json" };
      const outgoing = request({ socketPath: path, method, path: url, ...(body && { headers }) });
      outgoing.on("error", reject);
      outgoing.on("response", (response) => {
        let text = "";
        response.on("data", (data) => {
          text += data;
        });
        response.on("end", () => resolve({ status: response.statusCode, text }));
      });
      outgoing.end(body);
    });
  return { path, ask, start, pods };
}

describe("the local API", () => {
  it("enrols, lists and un-enrols pods", async (t) => {
    const { ask } = await serve(t);
    assert.deepEqual(await ask("PUT", "/v1/pods/u1", JSON.stringify(BODY)), {
      status: 200,
      text: '{"state":"up"}',
    });
    const { netns, ...facts } = BODY;
    assert.deepEqual(JSON.parse((await ask("GET", "/v1/pods")).text), {
      pods: [{ uid: "u1", ...facts, state: "up" }],
    });
    assert.equal((await ask("DELETE", "/v1/pods/u1")).status, 204);
    assert.equal((await ask("DELETE", "/v1/pods/u1")).status, 204);
    assert.deepEqual(JSON.parse((await ask("GET", "/v1/pods")).text), { pods: [] });
  });

  it("is its owner's alone", async (t) => {
    const { path } = await serve(t);
    assert.equal(statSync(path).mode & 0o777, 0o600);
  });

  it("says what is wrong with a request", async (t) => {
    const { ask } = await serve(t);
    const wrong = await ask("PUT", "/v1/pods/u1", JSON.stringify({ ...BODY, addresses: [] }));
    assert.equal(wrong.status, 400);
    assert.equal(JSON.parse(wrong.text).error, 'Cannot enrol pod "u1": "addresses" has no address');
    assert.equal((await ask("PUT", "/v1/pods/u1", "{")).status, 400);
    assert.equal((await ask("PUT", "/v1/pods/a.b", JSON.stringify(BODY))).status, 400);
    assert.equal((await ask("PUT", "/v1/pods/u1", `"${"x".repeat(20_000)}"`)).status, 413);
    assert.equal((await ask("POST", "/v1/pods")).status, 404);
  });

  it("answers 500 with the reason where the kernel said no", async (t) => {
    const cause = new Error("bpf: ENOMEM");
    const failure = new MeshError("KERNEL_CALL_FAILED", "Cannot load", { cause });
    const { ask } = await serve(t, failure);
    const answer = await ask("PUT", "/v1/pods/u1", JSON.stringify(BODY));
    assert.deepEqual(answer, { status: 500, text: '{"error":"Cannot load: bpf: ENOMEM"}' });
  });

  it("takes the socket of a dead agent, and not that of a living one", async (t) => {
    const { start } = await serve(t);
    await assert.rejects(start(), { code: "SETTINGS_INVALID", message: /another agent listens/ });
    const dir = mkdtempSync(join(tmpdir(), "local-api-"));
    t.after(() => rmSync(dir, { recursive: true }));
    writeFileSync(join(dir, "agent.sock"), "");
    const loggers = new Loggers({ format: "json", levels: parseLogLevels("off") });
    const registry = { put: () => undefined, delete: () => undefined, list: () => [] };
    const api = await serveLocalApi(join(dir, "agent.sock"), registry, loggers.for("x"));
    await api.close();
  });
});
