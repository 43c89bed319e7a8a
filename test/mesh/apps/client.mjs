// The other end of server.mjs: `client.mjs WHAT HOST …`. Prints one line of JSON; exits 0 if all
// was as it should be, else 1 with the reason.
import { connect } from "node:net";
import grpc from "@grpc/grpc-js";
import { Pattern } from "./pattern.mjs";

const [what, host, ...args] = process.argv.slice(2);

function open(port) {
  return connect({ host, port, allowHalfOpen: true, noDelay: true });
}

/** Everything up to the other end's half-close. */
function readAll(socket) {
  return new Promise((resolve, reject) => {
    const chunks = [];
    socket.on("data", (chunk) => chunks.push(chunk));
    socket.on("end", () => resolve(Buffer.concat(chunks)));
    socket.on("error", reject);
  });
}

/** Sends `length` bytes, half-closes, and compares what comes back as it comes. */
function echoOnce(seed, length) {
  return new Promise((resolve, reject) => {
    const socket = open(7001);
    const sent = new Pattern(seed);
    const expected = new Pattern(seed);
    let left = length;
    let received = 0;
    const send = () => {
      while (left > 0) {
        const size = Math.min(left, 50_021);
        left -= size;
        if (!socket.write(sent.next(size))) return;
      }
      socket.end();
    };
    socket.on("drain", send);
    socket.on("data", (chunk) => {
      received += chunk.length;
      if (!chunk.equals(expected.next(chunk.length))) reject(new Error(`${seed}: bytes differ`));
    });
    socket.on("end", () => {
      if (received === length) resolve(received);
      else reject(new Error(`${seed}: ${received} of ${length} bytes came back`));
    });
    socket.on("error", reject);
    send();
  });
}

const ACTIONS = {
  async transfer(connections, bytesEach) {
    const seeds = Array.from({ length: Number(connections) }, (_, index) => `seed ${index}`);
    const sizes = await Promise.all(seeds.map((seed) => echoOnce(seed, Number(bytesEach))));
    return { bytes: sizes.reduce((sum, size) => sum + size, 0) };
  },

  /** The server ends first: what we send after its end has to arrive still. */
  async halfClose(length) {
    const socket = open(7003);
    socket.write(`${length}\n`);
    const received = await readAll(socket);
    if (!received.equals(new Pattern(length).next(Number(length)))) throw new Error("bytes differ");
    const after = Buffer.alloc(Number(length), "x");
    await new Promise((resolve, reject) => {
      socket.on("error", reject);
      socket.end(after, resolve);
    });
    return { received: received.length, sentAfterEnd: after.length };
  },

  async serverFirst() {
    const socket = open(7002);
    const greeting = await new Promise((resolve, reject) => {
      socket.once("data", resolve);
      socket.once("error", reject);
    });
    socket.end("bye\r\n");
    return { greeting: greeting.toString(), rest: (await readAll(socket)).toString() };
  },

  async who() {
    return JSON.parse((await readAll(open(7004))).toString());
  },

  /** A reset has to arrive as a reset, not as an end. */
  async reset() {
    const socket = open(7005);
    socket.write("x");
    const outcome = await readAll(socket).then(
      () => "end",
      (error) => error.code,
    );
    return { outcome };
  },

  async grpc(messages) {
    const client = new grpc.Client(`${host}:8081`, grpc.credentials.createInsecure());
    const same = (value) => value;
    const call = client.makeBidiStreamRequest("/test.Echo/Talk", same, same);
    const answers = [];
    const done = new Promise((resolve, reject) => {
      call.on("data", (message) => answers.push(message.toString()));
      call.on("status", resolve);
      call.on("error", reject);
    });
    for (let index = 0; index < Number(messages); index++) call.write(Buffer.from(`m${index}`));
    call.end();
    const { code } = await done;
    client.close();
    return { code, answers: answers.length, last: answers.at(-1) };
  },

  async webSocket() {
    const socket = new WebSocket(`ws://${host}:8082/`);
    const answer = await new Promise((resolve, reject) => {
      socket.onopen = () => socket.send("hello");
      socket.onmessage = ({ data }) => resolve(data);
      socket.onerror = () => reject(new Error("WebSocket failed"));
    });
    socket.close();
    return { answer };
  },

  /** Holds a connection and says a line a second, until it is closed or told to stop by stdin. */
  async hold() {
    const socket = open(7001);
    const closed = new Promise((resolve) => {
      socket.on("error", ({ code }) => resolve(code));
      socket.on("end", () => resolve("end"));
    });
    let echoes = 0;
    socket.on("data", () => {
      if (++echoes === 1) console.log(JSON.stringify({ state: "open" }));
    });
    const ticking = setInterval(() => socket.write("tick\n"), 100);
    socket.write("tick\n");
    process.stdin.on("end", () => socket.destroy()).resume();
    socket.on("close", () => clearInterval(ticking));
    const outcome = await Promise.race([
      closed,
      new Promise((resolve) => {
        socket.on("close", () => resolve("close"));
      }),
    ]);
    return { outcome, echoes };
  },
};

const limit = setTimeout(
  () => {
    console.error("timed out");
    process.exit(1);
  },
  what === "hold" ? 120_000 : 60_000,
);
try {
  console.log(JSON.stringify(await ACTIONS[what](...args)));
} catch (error) {
  console.error(error.code ?? error.message);
  process.exitCode = 1;
} finally {
  clearTimeout(limit);
  process.stdin.destroy();
}
