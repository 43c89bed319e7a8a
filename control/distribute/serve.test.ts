import assert from "node:assert/strict";
import { X509Certificate } from "node:crypto";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, afterEach, before, beforeEach, describe, it } from "node:test";
import { MeshError } from "#core/errors.ts";
import { formatSocketAddress, parseIp } from "#core/ip.ts";
import type { Policy } from "#core/policy/policy.ts";
import type { Service } from "#core/service/service.ts";
import type { Workload } from "#core/service/workload.ts";
import { EMPTY_SNAPSHOT, type Snapshot } from "#core/snapshot.ts";
import { parseSpiffeId } from "#core/spiffe-id.ts";
import { createCertificateClient } from "#wire/ca/client.ts";
import { createCsr } from "#wire/ca/csr.ts";
import {
  type ConnectionChange,
  type DiscoveryClient,
  type DiscoveryUpdate,
  startDiscoveryClient,
} from "#wire/xds/client.ts";
import type { ControlEndpoint } from "#wire/xds/control-endpoint.ts";
import * as build from "../../test/support/mesh-builders.ts";
import { waitFor } from "../../test/support/wait.ts";
import { openAuthority } from "../authority/root.ts";
import { issueNodeToken } from "../authority/token.ts";
import type { PlacementSource, SnapshotSource } from "../index/types.ts";
import { describeServeEvent, type ServeEvent } from "./events.ts";
import { type DiscoveryAndCa, startDiscoveryAndCa } from "./serve.ts";

const clock = { nowMs: () => Date.now() };
const DAY_MS = 86_400_000;

/** A source that is told what to say. */
class Snapshots implements SnapshotSource {
  #snapshot: Snapshot = EMPTY_SNAPSHOT;
  readonly #listeners = new Set<() => void>();

  current(): Snapshot {
    return this.#snapshot;
  }

  onChange(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  set(snapshot: Partial<Snapshot>): void {
    this.#snapshot = { ...this.#snapshot, ...snapshot };
    for (const listener of this.#listeners) listener();
  }
}

const placement: PlacementSource = {
  podsOnNode: (node) => (node === "n1" ? [{ namespace: "shop", serviceAccount: "cart" }] : []),
};

const workload = (name: string, policies: Policy[] = []) =>
  build.workload({ name, namespace: "shop", policies: policies.map(({ key }) => key) });
const service = (name: string) => build.service(name, "10.96.0.7", { namespace: "shop" });
const policy = (name: string) => build.policy(name, { namespace: "shop", scope: "workload" });

const byUid = (...workloads: Workload[]) => new Map(workloads.map((one) => [one.uid, one]));
const byKey = (...services: Service[]) => new Map(services.map((one) => [one.key, one]));
const policyMap = (...policies: Policy[]) => new Map(policies.map((one) => [one.key, one]));

/** A client, with everything it was told in the order it was told. */
class Subscriber {
  readonly client: DiscoveryClient;
  readonly updates: DiscoveryUpdate[] = [];
  readonly changes: ConnectionChange[] = [];
  readonly messages: string[] = [];

  constructor(endpoint: ControlEndpoint, nodeName = "n1") {
    this.client = startDiscoveryClient({
      endpoint,
      node: {
        ip: "127.0.0.1",
        podName: "agent",
        podNamespace: "mesh",
        nodeName,
        metadata: { CLUSTER_ID: "Kubernetes" },
      },
      random: () => 0,
      handlers: {
        onUpdate: (update) => this.updates.push(update),
        onRejections: (rejections) => assert.fail(JSON.stringify(rejections)),
        onConnection: (change) => this.changes.push(change),
        onMessage: (typeUrl) => this.messages.push(typeUrl.slice(typeUrl.lastIndexOf(".") + 1)),
      },
    });
  }

  names(): string[] {
    return this.updates.flatMap(({ workloads, services, policies }) => [
      ...policies.changed.map(({ key }) => `+${key}`),
      ...workloads.changed.map(({ uid }) => `+${uid}`),
      ...services.changed.map(({ key }) => `+${key}`),
      ...[...workloads.removed, ...services.removed, ...policies.removed].map((key) => `-${key}`),
    ]);
  }

  firstError(): string | undefined {
    for (const change of this.changes) {
      if (change.kind === "disconnected") return change.error.message;
    }
    return undefined;
  }
}

describe("startDiscoveryAndCa()", () => {
  let stateDirectory: string;
  let snapshots: Snapshots;
  let control: DiscoveryAndCa;
  let events: ServeEvent[];
  let running: { stop(): Promise<void> }[];

  const start = async (port = 0) =>
    await startDiscoveryAndCa({
      address: { ip: parseIp("127.0.0.1"), port },
      stateDirectory,
      serverNames: ["control.example.org"],
      trustDomain: "cluster.local",
      snapshots,
      placement,
      clock,
      onEvent: (event) => {
        assert.ok(describeServeEvent(event).message);
        events.push(event);
      },
    });
  const token = async (node = "n1", ttlMs = DAY_MS, now = clock) =>
    await issueNodeToken({ stateDirectory, node, ttlMs, clock: now });
  const endpoint = (change: Partial<ControlEndpoint> = {}): ControlEndpoint => ({
    url: new URL(`https://${formatSocketAddress(control.address)}`),
    serverName: undefined,
    readRoots: async () => await readFile(join(stateDirectory, "root-cert.pem"), "utf8"),
    readToken: async () => await token(),
    headers: { clusterid: "Kubernetes" },
    ...change,
  });
  const subscribe = (change: Partial<ControlEndpoint> = {}, nodeName?: string) => {
    const subscriber = new Subscriber(endpoint(change), nodeName);
    running.push(subscriber.client);
    return subscriber;
  };

  before(async () => {
    stateDirectory = await mkdtemp(join(tmpdir(), `aquifer-serve-${process.pid}-`));
  });
  after(async () => await rm(stateDirectory, { recursive: true }));

  beforeEach(async () => {
    snapshots = new Snapshots();
    events = [];
    running = [];
    control = await start();
  });
  afterEach(async () => {
    for (const one of running) await one.stop();
    await control.close();
  });

  describe("discovery", () => {
    it("makes a client ready although there is nothing to tell", async () => {
      const subscriber = subscribe();
      await subscriber.client.ready;
      assert.deepEqual(subscriber.messages, ["Authorization", "Address"]);
      assert.deepEqual(subscriber.names(), []);
    });

    it("tells what there is, and then what changes", async () => {
      const cart = workload("cart");
      snapshots.set({ workloads: byUid(cart), services: byKey(service("cart")) });
      const subscriber = subscribe();
      await waitFor("told", () => subscriber.names().length === 2);
      const told = subscriber.updates.at(-1);
      assert.deepEqual(told?.workloads.changed, [cart]);
      assert.deepEqual(told?.services.changed, [service("cart")]);

      snapshots.set({ workloads: byUid(workload("web")) });
      await waitFor("told of the change", () => subscriber.names().length === 4);
      assert.deepEqual(subscriber.names().slice(2), [`+${workload("web").uid}`, `-${cart.uid}`]);
    });

    it("knows which nodes have all there is", async () => {
      const subscriber = subscribe();
      await subscriber.client.ready;
      await waitFor("n1 has all", () => control.nodes().get("n1") === true);
      snapshots.set({ workloads: byUid(workload("cart")) });
      assert.deepEqual([...control.nodes()], [["n1", false]]);
      await waitFor("n1 has all", () => control.nodes().get("n1") === true);
      assert.equal(subscriber.names().length, 1);
    });

    it("sends policies before the workloads that name them, and removes them after", async () => {
      const subscriber = subscribe();
      await subscriber.client.ready;
      const guarded = workload("cart", [policy("no")]);
      snapshots.set({ workloads: byUid(guarded), policies: policyMap(policy("no")) });
      await waitFor("told of both", () => subscriber.names().length === 2);
      assert.deepEqual(subscriber.names(), ["+shop/no", `+${guarded.uid}`]);
      snapshots.set({ workloads: byUid(workload("cart")), policies: policyMap() });
      await waitFor("told of both ends", () => subscriber.names().length === 4);
      assert.deepEqual(subscriber.names().slice(2), [`+${guarded.uid}`, "-shop/no"]);
    });

    it("sends a client that comes back only what it missed", async () => {
      const subscriber = subscribe();
      snapshots.set({ workloads: byUid(workload("cart"), workload("web")) });
      await subscriber.client.ready;
      await waitFor("told of both", () => subscriber.names().length === 2);
      const { port } = control.address;
      await control.close();
      snapshots.set({ workloads: byUid(workload("cart"), workload("api")) });
      control = await start(port);
      await waitFor("told what it missed", () => subscriber.names().length >= 4);
      const missed = [`+${workload("api").uid}`, `-${workload("web").uid}`];
      assert.deepEqual(subscriber.names().slice(2), missed);
      const [end] = subscriber.changes.filter(({ kind }) => kind === "disconnected");
      assert.equal(end?.kind === "disconnected" && end.reason, "Reconnect");
    });

    it("refuses a client without a token, and with a wrong one", async () => {
      for (const readToken of [async () => undefined, async () => "wrong"]) {
        const subscriber = subscribe({ readToken });
        await waitFor("refused", () => subscriber.firstError() !== undefined);
        assert.match(subscriber.firstError() ?? "", /Cannot accept the token/);
      }
      assert.equal(events.filter(({ kind }) => kind === "callerRefused").length >= 2, true);
    });

    it("refuses a token that has expired, and says when", async () => {
      const yesterday = { nowMs: () => Date.now() - DAY_MS };
      const old = await token("n1", 60_000, yesterday);
      const subscriber = subscribe({ readToken: async () => old });
      await waitFor("refused", () => subscriber.firstError() !== undefined);
      assert.match(subscriber.firstError() ?? "", /it expired at \d{4}-/);
    });

    it("refuses a node that calls itself by the name of another", async () => {
      const subscriber = subscribe({}, "n2");
      await waitFor("refused", () => subscriber.firstError() !== undefined);
      assert.match(subscriber.firstError() ?? "", /node "n2": the token is of node "n1"/);
    });

    it("does not take a server for control whose certificate has another root or name", async () => {
      const otherDirectory = await mkdtemp(join(tmpdir(), "aquifer-other-"));
      const other = await openAuthority({ directory: otherDirectory, trustDomain: "x", clock });
      await rm(otherDirectory, { recursive: true });
      for (const change of [
        { readRoots: async () => other.rootsPem.join("") },
        { serverName: "elsewhere.example.org" },
      ]) {
        const subscriber = subscribe(change);
        await waitFor("failed", () => subscriber.firstError() !== undefined);
        assert.equal(subscriber.updates.length, 0);
      }
      await subscribe({ serverName: "control.example.org" }).client.ready;
      await subscribe({ serverName: "istiod.istio-system.svc" }).client.ready;
    });
  });

  describe("certificates", () => {
    const CART = parseSpiffeId("spiffe://cluster.local/ns/shop/sa/cart");
    const requestFor = async (
      identity = CART,
      { csrPem, ttlSeconds = 3_600 }: { csrPem?: string; ttlSeconds?: number } = {},
      change: Partial<ControlEndpoint> = {},
    ) => {
      const client = createCertificateClient(endpoint(change));
      running.push({ stop: async () => client.close() });
      const csr = csrPem ?? (await createCsr(identity)).csrPem;
      return await client.request({ identity, csrPem: csr, ttlSeconds, impersonate: true });
    };
    const refusal = (pattern: RegExp) => (error: unknown) => {
      assert.ok(error instanceof MeshError);
      assert.equal(error.code, "CERTIFICATE_REFUSED");
      assert.match(error.message, pattern);
      return true;
    };

    it("are signed for the identity of a pod on the caller's node", async () => {
      const issued = await requestFor();
      assert.equal(issued.identity, CART);
      const leaf = new X509Certificate(issued.chainPem[0] ?? "");
      assert.equal(leaf.subject, undefined);
      assert.equal(leaf.subjectAltName, `URI:${CART}`);
      assert.deepEqual(leaf.keyUsage, ["1.3.6.1.5.5.7.3.1", "1.3.6.1.5.5.7.3.2"]);
      const lifetimeMs = issued.validity.notAfterMs - issued.validity.notBeforeMs;
      assert.equal(lifetimeMs, 3_600_000 + 120_000);
      const root = await readFile(join(stateDirectory, "root-cert.pem"), "utf8");
      assert.deepEqual(issued.rootsPem, [root]);
      assert.ok(events.some(({ kind }) => kind === "certificateIssued"));
    });

    it("are refused for an identity without a pod on the caller's node", async () => {
      const web = parseSpiffeId("spiffe://cluster.local/ns/shop/sa/web");
      await assert.rejects(requestFor(web), refusal(/node "n1" asked for .*sa\/web/));
      const readToken = async () => await token("n2");
      await assert.rejects(requestFor(CART, {}, { readToken }), refusal(/node "n2" asked for/));
    });

    it("are refused for a foreign trust domain", async () => {
      const foreign = parseSpiffeId("spiffe://example.org/ns/shop/sa/cart");
      await assert.rejects(requestFor(foreign), refusal(/trust domain here is "cluster.local"/));
    });

    it("are refused for a request that cannot be read", async () => {
      await assert.rejects(requestFor(CART, { csrPem: "no" }), refusal(/Cannot sign the request/));
    });

    it("are refused for longer than 90 days", async () => {
      const ttlSeconds = 91 * 86_400;
      await assert.rejects(requestFor(CART, { ttlSeconds }), refusal(/lifetime is from 1 to/));
    });

    it("are refused to a caller with a wrong token", async () => {
      const readToken = async () => "wrong";
      await assert.rejects(requestFor(CART, {}, { readToken }), refusal(/Cannot accept the token/));
    });

    it("are unavailable, not refused, while control is away", async () => {
      await control.close();
      await assert.rejects(requestFor(), { code: "CERTIFICATE_UNAVAILABLE" });
      control = await start();
    });
  });
});
