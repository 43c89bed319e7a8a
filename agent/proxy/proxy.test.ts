/** Two agents in one process: everything but the kernel is the real thing. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { connect as connectHttp2 } from "node:http2";
import { connect, createServer, type Socket } from "node:net";
import { after, afterEach, before, beforeEach, describe, it } from "node:test";
import { connect as connectTls } from "node:tls";
import { parseIp, type SocketAddress } from "#core/ip.ts";
import { EMPTY_MATCH, type Policy } from "#core/policy/policy.ts";
import type { Service } from "#core/service/service.ts";
import { identityOf, type Workload } from "#core/service/workload.ts";
import { TestAuthority } from "../../test/support/certificates.ts";
import { address, LoopbackAgent, type LoopbackPod } from "../../test/support/loopback-agent.ts";
import { policy, service, workload } from "../../test/support/mesh-builders.ts";
import { waitFor } from "../../test/support/wait.ts";

const APP_PORT = 8080;

let authority: TestAuthority;
let near: LoopbackAgent;
let far: LoopbackAgent;
let cart: Workload;
let store: Workload;
let cartPod: LoopbackPod;
let storePod: LoopbackPod;
let appClosers: (() => void)[];

/** Addresses of their own for each process and test: the tunnel's port is always the same. */
let nextHost = 1;
const newIp = () => {
  nextHost += 1;
  return parseIp(
    `127.${100 + (process.pid % 100)}.${Math.floor(nextHost / 200)}.${nextHost % 200}`,
  );
};

before(async () => {
  authority = await TestAuthority.create();
});

beforeEach(() => {
  near = new LoopbackAgent(authority);
  far = new LoopbackAgent(authority);
  cart = workload({ name: "cart", namespace: "shop", addresses: [newIp()] });
  store = workload({ name: "store", namespace: "shop", addresses: [newIp()] });
  appClosers = [];
  tellBoth({ workloads: [cart, store] });
  cartPod = near.addPod(cart);
  storePod = far.addPod(store);
});

afterEach(async () => {
  for (const close of appClosers) close();
  await Promise.all([near.close(), far.close()]);
});

after(() => undefined);

function tellBoth(
  changed: {
    readonly workloads?: readonly Workload[];
    readonly services?: readonly Service[];
    readonly policies?: readonly Policy[];
  },
  removed: readonly Policy[] = [],
): void {
  for (const agent of [near, far]) {
    agent.apply({
      workloads: { changed: changed.workloads ?? [], removed: [] },
      services: { changed: changed.services ?? [], removed: [] },
      policies: { changed: changed.policies ?? [], removed: removed.map(({ key }) => key) },
    });
  }
}

const at = ({ addresses: [ip] }: Workload, port = APP_PORT): SocketAddress =>
  address(ip ?? "", port);

/** An application in the pod of `owner` that answers each line with its name and the line. */
async function startApp(owner: Workload, port = APP_PORT): Promise<void> {
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.on("error", () => undefined);
    socket.on("data", (data) => socket.write(`${owner.name}: ${data}`));
  });
  server.listen(port, owner.addresses[0]);
  await once(server, "listening");
  appClosers.push(() => {
    server.close();
    for (const socket of sockets) socket.destroy();
  });
}

/** Connects as a program in `pod` would, to `destination`. */
function dialFrom(pod: LoopbackPod, destination: SocketAddress | undefined): Socket {
  pod.destination = destination;
  const socket = connect(pod.outbound.port, pod.outbound.ip);
  socket.on("error", () => undefined);
  appClosers.push(() => socket.destroy());
  return socket;
}

async function ask(socket: Socket, question = "hello"): Promise<string> {
  socket.write(question);
  const [data] = await once(socket, "data");
  return String(data);
}

const closed = (socket: Socket): Promise<void> =>
  new Promise((resolve) => {
    socket.on("error", () => undefined);
    if (socket.closed) resolve();
    else socket.once("close", () => resolve());
  });

const completeIn = (agent: LoopbackAgent) =>
  waitFor("a complete connection in the access log", () =>
    agent.access().find(({ message }) => message === "connection complete"),
  );

const failedIn = (agent: LoopbackAgent) =>
  waitFor("a failed connection in the access log", () =>
    agent.access().find(({ message }) => message === "connection failed"),
  );

const denyAll = (name: string, changes: Partial<Policy> = {}): Policy =>
  policy(name, { namespace: "shop", rules: [[]], ...changes });

const strict = (): Policy =>
  policy("strict", {
    namespace: "shop",
    rules: [[[{ ...EMPTY_MATCH, notPrincipals: [{ kind: "presence" }] }]]],
  });

describe("a connection between two pods of the mesh", () => {
  it("goes through the tunnel, and both ends tell who talked to whom", async () => {
    await startApp(store);
    const socket = dialFrom(cartPod, at(store));
    assert.equal(await ask(socket), "store: hello");
    socket.end();
    await closed(socket);
    const outbound = await completeIn(near);
    assert.equal(outbound.level, "info");
    assert.equal(outbound.direction, "outbound");
    assert.equal(outbound["src.identity"], "spiffe://cluster.local/ns/shop/sa/cart");
    assert.equal(outbound["dst.identity"], "spiffe://cluster.local/ns/shop/sa/store");
    assert.equal(outbound["dst.addr"], `${store.addresses[0]}:15008`);
    assert.equal(outbound["dst.hbone_addr"], `${store.addresses[0]}:${APP_PORT}`);
    assert.deepEqual([outbound.bytes_sent, outbound.bytes_recv], [5, 12]);
    assert.match(String(outbound.duration), /^\d+ms$/);
    const inbound = await completeIn(far);
    assert.equal(inbound.direction, "inbound");
    assert.equal(inbound["src.workload"], "cart");
    assert.equal(inbound["src.identity"], "spiffe://cluster.local/ns/shop/sa/cart");
    assert.equal(inbound["dst.identity"], "spiffe://cluster.local/ns/shop/sa/store");
    assert.deepEqual([inbound.bytes_sent, inbound.bytes_recv], [12, 5]);
  });

  it("shows the application the client's own address", async () => {
    await startApp(store);
    await ask(dialFrom(cartPod, at(store)));
    assert.deepEqual(
      storePod.shownClients.map(({ ip }) => ip),
      cart.addresses,
    );
  });

  it("shares one session among connections of one pair of identities", async () => {
    await startApp(store);
    await Promise.all(Array.from({ length: 10 }, () => ask(dialFrom(cartPod, at(store)))));
    assert.equal(cartPod.proxy.engine.load().outboundSessions, 1);
    assert.equal(storePod.proxy.engine.load().relays, 10);
  });

  it("counts bytes towards the client as sent, for either reporter", async () => {
    await startApp(store);
    await ask(dialFrom(cartPod, at(store)));
    for (const agent of [near, far]) {
      const [row] = agent.runtime.traffic.rows();
      assert.deepEqual(
        [row?.opened, row?.closed, row?.sentBytes, row?.receivedBytes],
        [1, 0, 12, 5],
      );
      assert.equal(row?.labels.connection_security_policy, "mutual_tls");
      assert.equal(row?.labels.source_principal, "spiffe://cluster.local/ns/shop/sa/cart");
    }
  });

  it("finds an endpoint behind a service's address, and names the service at both ends", async () => {
    const shop = service("store", "127.77.0.1", { namespace: "shop" });
    const endpoint = { ...store, services: new Map([[shop.key, new Map([[80, APP_PORT]])]]) };
    tellBoth({ services: [shop], workloads: [endpoint] });
    await startApp(store);
    const socket = dialFrom(cartPod, address("127.77.0.1", 80));
    assert.equal(await ask(socket), "store: hello");
    socket.destroy();
    for (const agent of [near, far]) {
      assert.equal((await completeIn(agent))["dst.service"], "store.shop.svc.cluster.local");
    }
  });

  it("tries another endpoint where one cannot be reached", async () => {
    const shop = service("store", "127.77.0.1", { namespace: "shop" });
    const services = new Map([[shop.key, new Map([[80, APP_PORT]])]]);
    const gone = workload({ name: "gone", namespace: "shop", addresses: [newIp()], services });
    // The one that is gone is drawn first: it has all but all of the capacity.
    const endpoints = [
      { ...store, services },
      { ...gone, capacity: 1_000_000_000 },
    ];
    tellBoth({ services: [shop], workloads: endpoints });
    await startApp(store);
    for (let round = 0; round < 5; round++) {
      const socket = dialFrom(cartPod, address("127.77.0.1", 80));
      assert.equal(await ask(socket), "store: hello");
      socket.destroy();
    }
    assert.ok(near.runtime.context.counts.endpointRetries > 0);
  });

  it("resets the client where the application does not listen, and says why", async () => {
    const socket = dialFrom(cartPod, at(store));
    await closed(socket);
    const inbound = await completeIn(far);
    assert.equal(inbound.level, "error");
    assert.match(String(inbound.error), /application at .*:8080: .*ECONNREFUSED/);
    assert.match(String((await completeIn(near)).error), /503/);
    const failed = near.runtime.traffic.rows().find(({ failed }) => failed > 0);
    assert.equal(failed?.labels.response_flags, "CONNECT");
  });

  it("is not made to a pod that shows another identity than expected", async () => {
    // Discovery says that the address belongs to somebody else by now.
    near.apply({ workloads: { changed: [{ ...store, serviceAccount: "other" }], removed: [] } });
    await startApp(store);
    await closed(dialFrom(cartPod, at(store)));
    const line = await completeIn(near);
    assert.match(String(line.error), /expected spiffe:.*sa\/other, found spiffe:.*sa\/store/);
    const failed = near.runtime.traffic.rows().find(({ failed }) => failed > 0);
    assert.equal(failed?.labels.response_flags, "IDENTITY_ERROR");
  });
});

describe("a connection to something outside the mesh", () => {
  it("goes where the client wanted, as it is", async () => {
    const outside = workload({ name: "outside", addresses: [newIp()] });
    await startApp(outside);
    const socket = dialFrom(cartPod, at(outside));
    assert.equal(await ask(socket), "outside: hello");
    socket.destroy();
    const line = await completeIn(near);
    assert.equal(line["dst.addr"], `${outside.addresses[0]}:${APP_PORT}`);
    assert.equal(line["dst.identity"], undefined);
  });

  it("is refused where it was not captured", async () => {
    await closed(dialFrom(cartPod, undefined));
    assert.match(String((await failedIn(near)).error), /not captured/);
    assert.equal(near.runtime.context.counts.notCaptured, 1);
  });

  it("is refused to a service without endpoints: there is no way around the mesh", async () => {
    tellBoth({ services: [service("store", "127.77.0.1", { namespace: "shop" })] });
    await closed(dialFrom(cartPod, address("127.77.0.1", 80)));
    assert.equal((await failedIn(near)).error, "no healthy endpoint");
  });
});

describe("policy", () => {
  it("refuses a tunnel's connection with 401 and names the policy", async () => {
    await startApp(store);
    tellBoth({ policies: [denyAll("nobody")] });
    await closed(dialFrom(cartPod, at(store)));
    const inbound = await completeIn(far);
    assert.equal(inbound.policy, "shop/nobody");
    assert.equal(inbound.error, 'denied by policy "shop/nobody"');
    assert.match(String((await completeIn(near)).error), /401/);
    for (const agent of [near, far]) {
      const failed = agent.runtime.traffic.rows().find(({ failed }) => failed > 0);
      assert.equal(failed?.labels.response_flags, "DENY");
    }
  });

  it("closes a live connection within a second of a change that denies it", async () => {
    await startApp(store);
    const socket = dialFrom(cartPod, at(store));
    await ask(socket);
    const startMs = performance.now();
    tellBoth({ policies: [denyAll("nobody")] });
    await closed(socket);
    assert.ok(performance.now() - startMs < 1_000);
    const line = await completeIn(far);
    assert.deepEqual([line.policy, line.level], ["shop/nobody", "error"]);
    assert.ok(
      far.lines.some(({ target, policy }) => target === "policy" && policy === line.policy),
    );
    assert.equal(far.runtime.context.counts.closedByPolicy, 1);
  });

  it("leaves a live connection alone that a change still allows", async () => {
    await startApp(store);
    const socket = dialFrom(cartPod, at(store));
    await ask(socket);
    tellBoth({ policies: [strict()] });
    await new Promise((resolve) => setTimeout(resolve, 100));
    assert.equal(await ask(socket), "store: hello");
  });

  it("waits for a policy that is named and not known yet", async () => {
    await startApp(store);
    const named = denyAll("later", { scope: "workload", rules: [] });
    tellBoth({ workloads: [{ ...store, policies: [named.key] }] });
    const socket = dialFrom(cartPod, at(store));
    const answer = ask(socket);
    await waitFor("the connection to wait", () => storePod.proxy.engine.load().inboundSessions);
    tellBoth({ policies: [named] });
    assert.equal(await answer, "store: hello");
  });
});

describe("plaintext from outside the mesh", () => {
  const dialPlain = (): Socket => {
    storePod.dialled = at(store);
    const socket = connect({
      host: storePod.inbound.ip,
      port: storePod.inbound.port,
      localAddress: "127.0.0.1",
    });
    socket.on("error", () => undefined);
    return socket;
  };

  it("reaches the application where policy does not mind", async () => {
    await startApp(store);
    const socket = dialPlain();
    assert.equal(await ask(socket), "store: hello");
    socket.destroy();
    const line = await completeIn(far);
    assert.equal(line["src.identity"], undefined);
    assert.equal(line["dst.hbone_addr"], undefined);
    const [row] = far.runtime.traffic.rows();
    assert.equal(row?.labels.connection_security_policy, "unknown");
  });

  it("is refused where mutual TLS is asked for", async () => {
    await startApp(store);
    tellBoth({ policies: [strict()] });
    await closed(dialPlain());
    assert.equal((await completeIn(far)).policy, "shop/strict");
  });

  it("does not go round in circles, nor to the mesh's own ports", async () => {
    storePod.dialled = address("127.0.0.1", APP_PORT);
    await closed(
      connect({
        host: storePod.inbound.ip,
        port: storePod.inbound.port,
        localAddress: "127.0.0.1",
      }),
    );
    assert.match(String((await failedIn(far)).error), /came back/);
    for (const port of [15_001, 15_006, 15_008]) {
      storePod.dialled = at(store, port);
      await closed(
        connect({
          host: storePod.inbound.ip,
          port: storePod.inbound.port,
          localAddress: "127.0.0.1",
        }),
      );
      await waitFor("a line", () =>
        far.access().find(({ error }) => error === `port ${port} is the mesh's own`),
      );
    }
  });
});

describe("the tunnel's end", () => {
  /** A peer of our own making, with whatever identity and words a test wants. */
  async function request(
    headers: Record<string, string>,
    uri: string = identityOf(cart),
    signer = authority,
  ): Promise<number | string> {
    const { certificatePem, privateKeyPem } = await signer.issue({ uris: [uri] });
    const socket = connectTls({
      host: store.addresses[0],
      port: 15_008,
      cert: certificatePem,
      key: privateKeyPem,
      ca: authority.rootPem,
      ALPNProtocols: ["h2"],
      servername: "",
      checkServerIdentity: () => undefined,
    });
    const session = connectHttp2(`https://${store.addresses[0]}`, {
      createConnection: () => socket,
    });
    appClosers.push(() => session.destroy());
    return new Promise((resolve) => {
      session.on("error", (error) => resolve(error.message));
      session.on("close", () => resolve("closed"));
      const stream = session.request(headers);
      stream.on("error", (error) => resolve(error.message));
      stream.on("response", (answer) => resolve(Number(answer[":status"])));
    });
  }

  const connectTo = (authorityText: string) => ({
    ":method": "CONNECT",
    ":authority": authorityText,
  });

  it("answers 200 with its own description once the application has accepted", async () => {
    await startApp(store);
    assert.equal(await request(connectTo(`${store.addresses[0]}:${APP_PORT}`)), 200);
  });

  it("answers 400 to anything but CONNECT, and to an authority that is none", async () => {
    const get = { ":method": "GET", ":path": "/", ":scheme": "https", ":authority": "a:80" };
    assert.equal(await request(get), 400);
    assert.equal(await request(connectTo("nonsense")), 400);
    assert.equal(await request(connectTo("10.0.0.1:99999")), 400);
  });

  it("answers 400 to the address of another pod", async () => {
    await startApp(store);
    assert.equal(await request(connectTo(`${cart.addresses[0]}:${APP_PORT}`)), 400);
    assert.match(String((await failedIn(far)).error), /400: .* is not an address of this workload/);
  });

  it("answers 503 to an unknown host, to the mesh's own ports, and where nothing listens", async () => {
    assert.equal(await request(connectTo("nowhere.shop.svc.cluster.local:80")), 503);
    assert.equal(await request(connectTo(`${store.addresses[0]}:15001`)), 503);
    assert.equal(await request(connectTo(`${store.addresses[0]}:${APP_PORT}`)), 503);
  });

  it("answers 401 where policy denies", async () => {
    await startApp(store);
    tellBoth({ policies: [denyAll("nobody")] });
    assert.equal(await request(connectTo(`${store.addresses[0]}:${APP_PORT}`)), 401);
  });

  it("finds the port behind a service's host name", async () => {
    const shop = service("store", "127.77.0.1", { namespace: "shop" });
    const services = new Map([[shop.key, new Map([[80, APP_PORT]])]]);
    tellBoth({ services: [shop], workloads: [{ ...store, services }] });
    await startApp(store);
    assert.equal(await request(connectTo("store.shop.svc.cluster.local:80")), 200);
    assert.equal(await request(connectTo("store.shop.svc.cluster.local:81")), 503);
  });

  it("talks to nobody of another trust domain, and to nobody of another root", async () => {
    await startApp(store);
    const headers = connectTo(`${store.addresses[0]}:${APP_PORT}`);
    const foreign = await request(headers, "spiffe://elsewhere/ns/shop/sa/cart");
    assert.equal(typeof foreign, "string");
    const line = await failedIn(far);
    assert.match(String(line.error), /expected an identity of trust domain "cluster.local"/);
    const stranger = await TestAuthority.create("Stranger");
    assert.equal(typeof (await request(headers, identityOf(cart), stranger)), "string");
    assert.equal(far.runtime.context.counts.handshakesFailed, 2);
  });

  it("closes what does not speak TLS", async () => {
    const socket = connect(15_008, store.addresses[0] ?? "");
    socket.on("error", () => undefined);
    socket.write("GET / HTTP/1.1\r\n\r\n");
    await closed(socket);
    assert.equal((await failedIn(far)).direction, "inbound");
  });
});

describe("a pod that leaves", () => {
  it("ends its sessions when its connections have ended", async () => {
    await startApp(store);
    const socket = dialFrom(cartPod, at(store));
    await ask(socket);
    const drained = storePod.proxy.drain(5_000);
    assert.equal(await ask(socket), "store: hello");
    socket.destroy();
    await drained;
    assert.deepEqual(storePod.proxy.engine.load(), {
      listeners: 0,
      inboundSessions: 0,
      outboundSessions: 0,
      relays: 0,
    });
  });
});
