// Calls one URL again and again, a connection a call, and prints what came of each as a line.
import { request } from "node:http";

const { TARGET, EVERY_MS = "500", SHOP_SECRET = "" } = process.env;

function call() {
  const startedMs = performance.now();
  const done = (outcome) => {
    const ms = Math.round((performance.now() - startedMs) * 10) / 10;
    console.log(JSON.stringify({ at: Date.now(), target: TARGET, ms, ...outcome }));
  };
  const headers = { connection: "close", "x-shop-secret": SHOP_SECRET };
  const outgoing = request(TARGET, { headers, timeout: 5_000 }, (incoming) => {
    incoming.resume();
    incoming.on("end", () => done({ status: incoming.statusCode }));
    incoming.on("error", (error) => done({ error: error.code ?? error.message }));
  });
  outgoing.on("timeout", () => outgoing.destroy(new Error("timed out")));
  outgoing.on("error", (error) => done({ error: error.code ?? error.message }));
  outgoing.end();
}

call();
setInterval(call, Number(EVERY_MS));
