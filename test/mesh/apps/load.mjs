// Connects to `HOST PORT` over and over, several at a time, until standard input ends. Each
// connection asks for one HTTP answer. Prints a line of JSON about all of them at the end, and one
// about the first at the start.
import { connect } from "node:net";

const [host, port, parallel = "4"] = process.argv.slice(2);
/** Longer than any answer takes, shorter than what hides a loss: a SYN is repeated after 1 s. */
const SLOW_MS = 900;
const TIMEOUT_MS = 8_000;

const outcome = { connections: 0, answered: 0, slow: 0, slowestMs: 0, errors: {} };
let isOver = false;
process.stdin
  .on("end", () => {
    isOver = true;
  })
  .resume();

function ask() {
  return new Promise((resolve) => {
    const socket = connect({ host, port: Number(port), noDelay: true });
    let text = "";
    socket.setTimeout(TIMEOUT_MS, () => socket.destroy(new Error("timed out")));
    socket.on("connect", () =>
      socket.write(`GET / HTTP/1.1\r\nhost: ${host}\r\nconnection: close\r\n\r\n`),
    );
    socket.on("data", (chunk) => {
      text += chunk;
    });
    socket.on("error", (error) => resolve(error.code ?? error.message));
    socket.on("close", () => resolve(text.startsWith("HTTP/1.1 200") ? undefined : "no answer"));
  });
}

async function work() {
  while (!isOver) {
    const startedMs = performance.now();
    const error = await ask();
    const tookMs = performance.now() - startedMs;
    outcome.connections++;
    if (error === undefined) outcome.answered++;
    else outcome.errors[error] = (outcome.errors[error] ?? 0) + 1;
    if (tookMs > SLOW_MS) outcome.slow++;
    outcome.slowestMs = Math.max(outcome.slowestMs, Math.round(tookMs));
    if (outcome.connections === 1) console.log(JSON.stringify({ state: "running" }));
    // Two cores are shared with everybody: a steady stream, not as much as there is.
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

await Promise.all(Array.from({ length: Number(parallel) }, work));
console.log(JSON.stringify(outcome));
