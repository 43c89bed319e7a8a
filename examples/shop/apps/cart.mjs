// The cart: asks the stock, then has the payment taken in another namespace.
import { createServer, request } from "node:http";

const { STOCK = "http://stock", PAYMENTS = "http://payments.bank" } = process.env;

function ask(url) {
  return new Promise((resolve, reject) => {
    const headers = { connection: "close", "x-shop-secret": process.env.SHOP_SECRET ?? "" };
    const outgoing = request(url, { headers, timeout: 5_000 }, (incoming) => {
      let text = "";
      incoming.setEncoding("utf8");
      incoming.on("data", (chunk) => {
        text += chunk;
      });
      incoming.on("end", () => resolve(JSON.parse(text)));
    });
    outgoing.on("timeout", () => outgoing.destroy(new Error(`${url} timed out`)));
    outgoing.on("error", reject);
    outgoing.end();
  });
}

const server = createServer(async (incoming, response) => {
  if (incoming.url === "/healthz") return response.end("ok\n");
  try {
    const stock = await ask(`${STOCK}/left`);
    const payment = await ask(`${PAYMENTS}/pay`);
    response.end(`${JSON.stringify({ stock, payment })}\n`);
  } catch (error) {
    response.statusCode = 502;
    response.end(`${JSON.stringify({ error: error.message })}\n`);
  }
});
server.listen(8080, "::", () => console.log("cart listens on 8080"));
