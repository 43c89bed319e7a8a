import assert from "node:assert/strict";
import http2 from "node:http2";
import { afterEach, before, beforeEach, describe, it } from "node:test";
import { promisify } from "node:util";
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import {
  type Client,
  type ClientDuplexStream,
  type Metadata,
  Server,
  ServerCredentials,
  type ServiceError,
  status,
} from "@grpc/grpc-js";
import { type DeltaDiscoveryRequest, DeltaDiscoveryRequestSchema } from "#wire/gen/discovery_pb.js";
import { type Issued, TestAuthority } from "../../test/support/certificates.ts";
import { waitFor } from "../../test/support/wait.ts";
import type { Authenticate } from "./caller.ts";
import { CallerGate } from "./caller-gate.ts";
import { callMetadata, createChannel } from "./channel.ts";
import { DELTA_METHOD_OF_CLIENT, type ReceivedResponse } from "./delta-method.ts";
import type { Catalog } from "./delta-session.ts";
import { type EncodedResource, encodeResource } from "./resource.ts";
import { DiscoveryServer, type DiscoveryServerEvent } from "./server.ts";
import { ADDRESS_TYPE, AUTHORIZATION_TYPE, LEGACY_WORKLOAD_TYPE } from "./type-urls.ts";

type Request = MessageInitShape<typeof DeltaDiscoveryRequestSchema>;

/** Callers with the token "slow" are let in when this says so. */
let letIn: () => void = () => undefined;

/** The token is the name of the node. */
const authenticate: Authenticate = async ({ bearerToken }) => {
  if (bearerToken === "slow") {
    await new Promise<void>((resolve) => {
      letIn = resolve;
    });
  }
  if (bearerToken === "broken") throw new Error("no key");
  if (bearerToken === undefined) return { kind: "refused", reason: "no token" };
  return { kind: "accepted", caller: { kind: "node", node: bearerToken } };
};

/** A client that does just what a test says. */
class RawClient {
  readonly received: ReceivedResponse["response"][] = [];
  readonly call: ClientDuplexStream<DeltaDiscoveryRequest, ReceivedResponse>;
  ended: ServiceError | "ok" | undefined;

  constructor(client: Client, metadata: Metadata) {
    const { path, requestSerialize, responseDeserialize } = DELTA_METHOD_OF_CLIENT;
    this.call = client.makeBidiStreamRequest(path, requestSerialize, responseDeserialize, metadata);
    this.call.on("error", (error: ServiceError) => {
      this.ended ??= error;
    });
    this.call.on("end", () => {
      this.ended ??= "ok";
    });
    this.call.on("data", ({ response }: ReceivedResponse) => this.received.push(response));
  }

  send(init: Request): void {
    this.call.write(create(DeltaDiscoveryRequestSchema, init));
  }

  async responses(count: number) {
    return await waitFor(`${count} responses`, () =>
      this.received.length >= count ? this.received : undefined,
    );
  }

  async end(): Promise<ServiceError> {
    const ended = await waitFor("end", () => this.ended);
    assert.ok(ended !== "ok", "the stream ended well");
    return ended;
  }
}

describe("DiscoveryServer", () => {
  let issued: Issued;
  let authority: TestAuthority;
  let entries: Record<keyof Catalog, Map<string, EncodedResource>>;
  let discovery: DiscoveryServer;
  let server: Server;
  let port: number;
  let events: DiscoveryServerEvent[];
  let clients: Client[];

  const start = async (options: { stallLimitMs?: number } = {}) => {
    const onEvent = (event: DiscoveryServerEvent) => events.push(event);
    const gate = new CallerGate(authenticate, onEvent);
    discovery = new DiscoveryServer({ catalog: () => entries, gate, onEvent, ...options });
    server = new Server({ interceptors: [gate.interceptor] });
    discovery.addTo(server);
    const { certificatePem, privateKeyPem } = issued;
    const pair = {
      cert_chain: Buffer.from(certificatePem),
      private_key: Buffer.from(privateKeyPem),
    };
    const bind = promisify(server.bindAsync.bind(server));
    port = await bind("127.0.0.1:0", ServerCredentials.createSsl(null, [pair]));
  };
  const connect = async (token = "n1") => {
    const endpoint = {
      url: new URL(`https://localhost:${port}`),
      serverName: undefined,
      readRoots: async () => authority.rootPem,
      readToken: async () => token,
      headers: {},
    };
    const client = createChannel(endpoint, authority.rootPem);
    clients.push(client);
    return new RawClient(client, await callMetadata(endpoint));
  };
  const set = (name: string, content: string) => {
    const before = entries[ADDRESS_TYPE].get(name)?.version;
    entries[ADDRESS_TYPE].set(name, encodeResource(ADDRESS_TYPE, name, Buffer.from(content)));
    const addresses = new Map([[name, before]]);
    discovery.push({ [ADDRESS_TYPE]: addresses, [AUTHORIZATION_TYPE]: new Map() });
  };
  const subscribed = async () => {
    const client = await connect();
    client.send({ typeUrl: AUTHORIZATION_TYPE });
    client.send({ typeUrl: ADDRESS_TYPE });
    await client.responses(2);
    return client;
  };
  const ofKind = <Kind extends DiscoveryServerEvent["kind"]>(kind: Kind) =>
    events.filter((event): event is DiscoveryServerEvent & { kind: Kind } => event.kind === kind);

  before(async () => {
    authority = await TestAuthority.create();
    issued = await authority.issue({ dnsNames: ["localhost"] });
  });
  beforeEach(() => {
    entries = { [ADDRESS_TYPE]: new Map(), [AUTHORIZATION_TYPE]: new Map() };
    events = [];
    clients = [];
  });
  afterEach(() => {
    for (const client of clients) client.close();
    server.forceShutdown();
  });

  it("refuses callers without a valid token with UNAUTHENTICATED", async () => {
    await start();
    const missing = await (await connect("")).end();
    assert.deepEqual([missing.code, missing.details], [status.UNAUTHENTICATED, "no token"]);
    const broken = await (await connect("broken")).end();
    assert.equal(broken.code, status.UNAUTHENTICATED);
    assert.equal(broken.details, "Cannot check the caller: no key");
    assert.equal(ofKind("callerRefused").length, 2);
    assert.match(ofKind("callerRefused")[0]?.peer ?? "", /^127\.0\.0\.1:\d+$/);
  });

  it("does not serve one that hangs up while it is being looked at", async () => {
    await start();
    const client = await connect("slow");
    const before = letIn;
    await waitFor("question", () => letIn !== before);
    client.call.cancel();
    await waitFor("end", () => client.ended);
    // The server hears of the end before it hears of what this other caller asks.
    const other = await connect("n1");
    other.send({ typeUrl: AUTHORIZATION_TYPE });
    await other.responses(1);
    letIn();
    await new Promise((resolve) => setImmediate(resolve));
    assert.equal(discovery.streams, 1);
  });

  it("refuses a node that claims another name with PERMISSION_DENIED", async () => {
    await start();
    const client = await connect("n1");
    client.send({ typeUrl: ADDRESS_TYPE, node: { metadata: { NODE_NAME: "n2" } } });
    const { code, details } = await client.end();
    assert.equal(code, status.PERMISSION_DENIED);
    assert.equal(details, 'Cannot serve node "n2": the token is of node "n1"');
  });

  it("takes a node at its token's word where it gives no name", async () => {
    await start();
    const client = await connect("n1");
    client.send({ typeUrl: AUTHORIZATION_TYPE, node: { metadata: { NAMESPACE: "mesh" } } });
    await client.responses(1);
    assert.deepEqual(
      ofKind("subscribed").map(({ node }) => node),
      ["n1"],
    );
  });

  it("names the type to use to a client of the legacy one", async () => {
    await start();
    const client = await connect();
    client.send({ typeUrl: LEGACY_WORKLOAD_TYPE });
    const { code, details } = await client.end();
    assert.equal(code, status.UNIMPLEMENTED);
    assert.match(details, /subscribe to "type.googleapis.com\/istio.workload.Address" instead/);
  });

  it("gives addresses after a moment to a client that never asks for policies", async () => {
    await start();
    set("a", "1");
    const client = await connect();
    client.send({ typeUrl: ADDRESS_TYPE });
    const [response] = await client.responses(1);
    assert.deepEqual(
      response?.resources.map(({ name }) => name),
      ["a"],
    );
  });

  it("reports a rejection and sends the next change all the same", async () => {
    await start();
    const client = await subscribed();
    set("a", "bad");
    const rejected = (await client.responses(3))[2];
    const errorDetail = { code: 3, message: "a: makes no sense" };
    client.send({ typeUrl: ADDRESS_TYPE, responseNonce: rejected?.nonce ?? "", errorDetail });
    const [rejection] = await waitFor("rejection", () =>
      ofKind("rejected").length > 0 ? ofKind("rejected") : undefined,
    );
    assert.equal(rejection?.reason, "a: makes no sense");
    set("a", "good");
    const next = (await client.responses(4))[3];
    assert.deepEqual(
      next?.resources.map(({ name }) => name),
      ["a"],
    );
    assert.equal(client.received.length, 4);
  });

  it("ends its streams with UNAVAILABLE when it is closed", async () => {
    await start();
    const client = await subscribed();
    discovery.close();
    assert.equal((await client.end()).code, status.UNAVAILABLE);
    const late = await connect();
    assert.equal((await late.end()).code, status.UNAVAILABLE);
  });

  it("forgets a client that hangs up", async () => {
    await start();
    const client = await subscribed();
    client.call.cancel();
    await waitFor("end", () => discovery.streams === 0);
    assert.equal(ofKind("streamEnded").length, 1);
    set("a", "1");
  });

  it("has a limit for the streams of one node, and none that others feel", async () => {
    await start();
    for (let count = 0; count < 8; count++) await subscribed();
    const ninth = await (await connect("n1")).end();
    assert.equal(ninth.code, status.RESOURCE_EXHAUSTED);
    const other = await connect("n2");
    other.send({ typeUrl: AUTHORIZATION_TYPE });
    await other.responses(1);
  });

  it("sends one that reads slowly only the newest of what it missed", async () => {
    await start();
    const client = await subscribed();
    client.call.on("data", ({ response: { typeUrl, nonce } }: ReceivedResponse) => {
      client.send({ typeUrl, responseNonce: nonce });
    });
    client.call.pause();
    // More than the windows of HTTP/2 and the buffers of sockets hold.
    const large = "x".repeat(1_048_576);
    const rounds = 64;
    for (let round = 0; round < rounds; round++) {
      set("a", `${round}${large}`);
      await new Promise((resolve) => setImmediate(resolve));
    }
    const pushed = ofKind("pushed").length - 2;
    assert.ok(pushed < rounds / 2, `${pushed} of ${rounds} were pushed to one who does not read`);
    client.call.resume();
    const newest = entries[ADDRESS_TYPE].get("a")?.version;
    await waitFor("newest", () => client.received.at(-1)?.resources[0]?.version === newest);
    assert.ok(client.received.length - 2 <= pushed + 1);
  });

  it("cuts off one that never answers, however much there is to tell it", async () => {
    await start({ stallLimitMs: 50 });
    const client = await subscribed();
    let round = 0;
    await waitFor("end", () => {
      set("a", `${round++}`);
      return client.ended;
    });
    const { code, details } = await client.end();
    assert.equal(code, status.DEADLINE_EXCEEDED);
    assert.match(details, /nothing was read or answered for 50 ms/);
  });

  it("cuts off one that never reads", async () => {
    await start({ stallLimitMs: 50 });
    const client = await subscribed();
    client.call.pause();
    for (let count = 0; count < 32; count++) set(`a${count}`, "x".repeat(1_048_576));
    const [end] = await waitFor("end", () =>
      ofKind("streamEnded").length > 0 ? ofKind("streamEnded") : undefined,
    );
    assert.match(end?.reason ?? "", /nothing was read or answered for 50 ms/);
    // Its memory is held until it is gone, so that it still counts.
    assert.equal(discovery.streams, 1);
    client.call.cancel();
    await waitFor("gone", () => discovery.streams === 0);
  });

  it("keeps one that answers slowly, but answers", async () => {
    await start({ stallLimitMs: 500 });
    const client = await subscribed();
    client.call.on("data", ({ response: { typeUrl, nonce } }: ReceivedResponse) => {
      setTimeout(() => client.send({ typeUrl, responseNonce: nonce }), 20);
    });
    const endsAtMs = performance.now() + 1_100;
    await waitFor("time to pass", () => {
      set("a", String(performance.now()));
      return performance.now() > endsAtMs;
    });
    assert.equal(client.ended, undefined);
  });

  it("answers all pings, however often they come", async () => {
    await start();
    const session = http2.connect(`https://localhost:${port}`, { ca: authority.rootPem });
    const goAways: number[] = [];
    session.on("goaway", (code: number) => goAways.push(code));
    const ping = async () =>
      await new Promise<void>((resolve, reject) => {
        session.ping((error) => (error ? reject(error) : resolve()));
      });
    await new Promise((resolve) => session.once("connect", resolve));
    for (let count = 0; count < 100; count++) await ping();
    session.close();
    assert.deepEqual(goAways, []);
  });
});
