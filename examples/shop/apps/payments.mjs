// Takes payments, and notes who was connected: whatever the mesh refused must not show up here.
import { createServer } from "node:http";

let payments = 0;
const server = createServer((request, response) => {
  if (request.url === "/healthz") return response.end("ok\n");
  payments += 1;
  console.log(JSON.stringify({ payment: payments, from: request.socket.remoteAddress }));
  response.setHeader("content-type", "application/json");
  response.end(`${JSON.stringify({ payment: payments })}\n`);
});
server.listen(8443, "::", () => console.log("payments listens on 8443"));
