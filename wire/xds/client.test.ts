import assert from "node:assert/strict";
import { afterEach, before, describe, it } from "node:test";
import { promisify } from "node:util";
import {
  Metadata,
  Server,
  ServerCredentials,
  type ServerDuplexStream,
  status,
} from "@grpc/grpc-js";
import type { DeltaDiscoveryRequest } from "#wire/gen/discovery_pb.js";
import { type Issued, TestAuthority } from "../../test/support/certificates.ts";
import { workload } from "../../test/support/mesh-builders.ts";
import { waitFor } from "../../test/support/wait.ts";
import {
  type ConnectionChange,
  type DiscoveryClient,
  type DiscoveryUpdate,
  type Rejection,
  startDiscoveryClient,
} from "./client.ts";
import type { ControlEndpoint } from "./control-endpoint.ts";
import { DELTA_METHOD_OF_SERVER } from "./delta-method.ts";
import { encodeWorkloadAddress } from "./encode.ts";
import { type EncodedResource, encodeResource, joinResponse } from "./resource.ts";
import { ADDRESS_TYPE, AUTHORIZATION_TYPE, type DiscoveryType } from "./type-urls.ts";

type Call = ServerDuplexStream<DeltaDiscoveryRequest, Uint8Array>;

/** A server that says what a test tells it to say. */
class ScriptedServer {
  readonly calls: Call[] = [];
  readonly requests: DeltaDiscoveryRequest[] = [];
  readonly #server = new Server();
  port = 0;

  async listen({ certificatePem, privateKeyPem }: Issued): Promise<void> {
    this.#server.addService(
      { delta: DELTA_METHOD_OF_SERVER },
      {
        delta: (call: Call) => {
          this.calls.push(call);
          call.on("error", () => undefined);
          call.on("data", (request: DeltaDiscoveryRequest) => this.requests.push(request));
        },
      },
    );
    const pair = {
      cert_chain: Buffer.from(certificatePem),
      private_key: Buffer.from(privateKeyPem),
    };
    const credentials = ServerCredentials.createSsl(null, [pair]);
    const bind = promisify(this.#server.bindAsync.bind(this.#server));
    this.port = await bind("127.0.0.1:0", credentials);
  }

  get call(): Call {
    const call = this.calls.at(-1);
    assert.ok(call, "nobody called");
    return call;
  }

  send(
    typeUrl: DiscoveryType,
    nonce: string,
    changed: readonly EncodedResource[] = [],
    removed: readonly string[] = [],
  ): void {
    this.call.write(joinResponse({ typeUrl, nonce, changed, removed }));
  }

  end(code: status, details = "the test says so"): void {
    if (code === status.OK) this.call.end();
    else this.call.emit("error", { code, details, metadata: new Metadata() });
  }

  close(): void {
    this.#server.forceShutdown();
  }
}

const cart = workload({ name: "cart" });
const encodedCart = encodeResource(ADDRESS_TYPE, cart.uid, encodeWorkloadAddress(cart));
const noise = encodeResource(ADDRESS_TYPE, "noise", Uint8Array.of(0xff));

describe("startDiscoveryClient()", () => {
  let authority: TestAuthority;
  let server: ScriptedServer;
  let client: DiscoveryClient;
  let updates: DiscoveryUpdate[];
  let rejections: Rejection[];
  let changes: ConnectionChange[];
  let messages: [string, number][];
  let tokens: number;

  const connect = (change: Partial<ControlEndpoint> = {}) => {
    [updates, rejections, changes, messages] = [[], [], [], []];
    tokens = 0;
    client = startDiscoveryClient({
      endpoint: {
        url: new URL(`https://localhost:${server.port}`),
        serverName: undefined,
        readRoots: async () => authority.rootPem,
        readToken: async () => `token-${++tokens}`,
        headers: { clusterid: "c1" },
        ...change,
      },
      node: {
        ip: "10.0.0.9",
        podName: "agent-x",
        podNamespace: "mesh",
        nodeName: "n1",
        metadata: { CLUSTER_ID: "c1" },
      },
      random: () => 0,
      handlers: {
        onUpdate: (update) => updates.push(update),
        onRejections: (some) => rejections.push(...some),
        onConnection: (one) => changes.push(one),
        onMessage: (typeUrl, bytes) => messages.push([typeUrl, bytes]),
      },
    });
  };
  const ends = () => changes.filter((one) => one.kind === "disconnected");
  const requests = async (count: number) =>
    await waitFor(`${count} requests`, () =>
      server.requests.length >= count ? server.requests : undefined,
    );

  before(async () => {
    authority = await TestAuthority.create();
  });
  const listen = async () => {
    server = new ScriptedServer();
    await server.listen(await authority.issue({ dnsNames: ["localhost"] }));
  };
  afterEach(async () => {
    await client.stop();
    server.close();
  });

  it("asks for everything of both types, policies first, and says who asks", async () => {
    await listen();
    connect();
    const [policies, addresses] = await requests(2);
    assert.deepEqual([policies?.typeUrl, addresses?.typeUrl], [AUTHORIZATION_TYPE, ADDRESS_TYPE]);
    assert.deepEqual(policies?.resourceNamesSubscribe, []);
    assert.equal(policies?.node?.id, "ztunnel~10.0.0.9~agent-x.mesh~mesh.svc.cluster.local");
    assert.deepEqual(policies?.node?.metadata, {
      NAME: "agent-x",
      NAMESPACE: "mesh",
      INSTANCE_IPS: "10.0.0.9",
      NODE_NAME: "n1",
      CLUSTER_ID: "c1",
    });
    const { metadata } = server.call;
    assert.deepEqual(metadata.get("authorization"), ["Bearer token-1"]);
    assert.deepEqual(metadata.get("clusterid"), ["c1"]);
  });

  it("is ready after a response of both types, and not before", async () => {
    await listen();
    connect();
    await requests(2);
    let isReady = false;
    void client.ready.then(() => {
      isReady = true;
    });
    server.send(ADDRESS_TYPE, "n1", [encodedCart]);
    await requests(3);
    assert.equal(isReady, false);
    server.send(AUTHORIZATION_TYPE, "n2");
    await client.ready;
    assert.deepEqual(updates[0]?.workloads.changed, [cart]);
    const answers = (await requests(4)).slice(2);
    assert.deepEqual(
      answers.map(({ responseNonce }) => responseNonce),
      ["n1", "n2"],
    );
    assert.ok(answers.every(({ errorDetail }) => errorDetail === undefined));
    assert.deepEqual(
      messages.map(([typeUrl]) => typeUrl),
      [ADDRESS_TYPE, AUTHORIZATION_TYPE],
    );
    assert.ok((messages[0]?.[1] ?? 0) > encodedCart.bytes.length);
  });

  it("rejects what it cannot read, with the reason, and keeps the rest", async () => {
    await listen();
    connect();
    await requests(2);
    server.send(ADDRESS_TYPE, "n1", [encodedCart, noise]);
    const answer = (await requests(3))[2];
    assert.equal(answer?.responseNonce, "n1");
    assert.match(answer.errorDetail?.message ?? "", /^noise: Cannot read address "noise": message/);
    assert.deepEqual(updates[0]?.workloads.changed, [cart]);
    assert.deepEqual(
      rejections.map(({ name }) => name),
      ["noise"],
    );
  });

  it("comes back with what it has, and a token read anew", async () => {
    await listen();
    connect();
    await requests(2);
    server.send(ADDRESS_TYPE, "n1", [encodedCart, noise]);
    await requests(3);
    server.end(status.UNAVAILABLE);
    const [policies, addresses] = (await requests(5)).slice(3);
    assert.deepEqual(policies?.initialResourceVersions, {});
    const { version } = encodedCart;
    assert.deepEqual(addresses?.initialResourceVersions, { [cart.uid]: version });
    assert.deepEqual(server.call.metadata.get("authorization"), ["Bearer token-2"]);
    server.send(ADDRESS_TYPE, "n1", [], [cart.uid]);
    await requests(6);
    assert.deepEqual(updates.at(-1)?.workloads.removed, [cart.uid]);
  });

  const orderly: readonly (readonly [status, string])[] = [
    [status.UNAVAILABLE, "Reconnect"],
    [status.DEADLINE_EXCEEDED, "Reconnect"],
    [status.CANCELLED, "Reconnect"],
    [status.OK, "Complete"],
    [status.INTERNAL, "Error"],
  ];
  for (const [code, reason] of orderly) {
    it(`calls the end of a working stream with ${status[code]} "${reason}"`, async () => {
      await listen();
      connect();
      for (let round = 1; round <= 3; round++) {
        await waitFor("call", () => server.calls.length === round && server.requests.length >= 2);
        server.send(ADDRESS_TYPE, "n1");
        await waitFor("answer", () => messages.length === round);
        server.end(code);
        await waitFor("end", () => ends().length === round);
      }
      assert.deepEqual(
        ends().map((end) => end.reason),
        [reason, reason, reason],
      );
      const delays = ends().map(({ retryDelayMs }) => retryDelayMs);
      // Half of 10 ms each time where the end was ordinary; where it was not, twice as much each.
      assert.deepEqual(delays, reason === "Error" ? [5, 10, 20] : [5, 5, 5]);
    });
  }

  it("waits longer after each stream that was refused", async () => {
    await listen();
    connect();
    for (let round = 1; round <= 4; round++) {
      await waitFor("call", () => server.calls.length === round);
      server.end(status.UNAUTHENTICATED, "no such token");
      await waitFor("end", () => ends().length === round);
    }
    assert.deepEqual(
      ends().map(({ retryDelayMs }) => retryDelayMs),
      [5, 10, 20, 40],
    );
    assert.match(ends()[0]?.error.message ?? "", /Cannot go on with discovery: no such token/);
  });

  it("tells a server that is not there from one that went away", async () => {
    await listen();
    server.close();
    connect();
    await waitFor("end", () => ends().length >= 2);
    assert.equal(ends()[0]?.reason, "ConnectionError");
  });

  it("speaks nothing but https", async () => {
    await listen();
    connect({ url: new URL(`http://localhost:${server.port}`) });
    await waitFor("end", () => ends().length >= 1);
    assert.match(ends()[0]?.error.message ?? "", /only https is spoken/);
  });

  it("goes on where a token cannot be read, until it can", async () => {
    await listen();
    let reads = 0;
    const readToken = async () => {
      if (++reads === 1) throw new Error("no such file");
      return "token";
    };
    connect({ readToken });
    await requests(2);
    assert.match(ends()[0]?.error.message ?? "", /no such file/);
  });

  it("takes a response that is larger than the 4 MiB that grpc allows by default", async () => {
    await listen();
    connect();
    await requests(2);
    const many = Array.from({ length: 6 }, (_, index) => {
      const large = workload({ name: `w${index}`, canonicalName: "x".repeat(1_048_576) });
      return encodeResource(ADDRESS_TYPE, large.uid, encodeWorkloadAddress(large));
    });
    server.send(ADDRESS_TYPE, "n1", many);
    await requests(3);
    assert.equal(updates[0]?.workloads.changed.length, 6);
  });

  it("ends without a word once it is stopped", async () => {
    await listen();
    connect();
    await requests(2);
    const closed = new Promise((resolve) => server.call.once("close", resolve));
    const before = changes.length;
    await client.stop();
    await closed;
    assert.equal(changes.length, before);
  });
});
