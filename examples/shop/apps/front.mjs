// The shop's page: asks the catalog and the cart for every visit. Knows nothing of any mesh.
import { createServer } from "node:http";

const { CATALOG = "http://catalog", CART = "http://cart" } = process.env;

async function ask(url) {
  const response = await fetch(url, {
    headers: { connection: "close", "x-shop-secret": process.env.SHOP_SECRET ?? "" },
    signal: AbortSignal.timeout(5_000),
  });
  if (!response.ok) throw new Error(`${url} answered ${response.status}`);
  return response.json();
}

const server = createServer(async (request, response) => {
  if (request.url === "/healthz") return response.end("ok\n");
  try {
    const [goods, order] = await Promise.all([ask(`${CATALOG}/goods`), ask(`${CART}/checkout`)]);
    const visitor = request.socket.remoteAddress;
    response.setHeader("content-type", "application/json");
    response.end(`${JSON.stringify({ visitor, goods, order })}\n`);
  } catch (error) {
    response.statusCode = 502;
    response.end(`${JSON.stringify({ error: error.message })}\n`);
  }
});
server.listen(8080, "::", () => console.log("front listens on 8080"));
