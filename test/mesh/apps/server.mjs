// TCP, HTTP, gRPC and WebSocket servers of all the kinds that a mesh has to carry, in one process.
//
//   7001 echo, up to the client's half-close          7002 speaks first, then echoes lines
//   7003 sends N bytes and half-closes, then counts   7004 tells who is connected, and closes
//   7005 resets after the first byte                  7006 never reads
//   8080 HTTP   8081 gRPC (a byte stream, both ways)   8082 WebSocket echo
import { createServer as createHttpServer } from "node:http";
import { createServer } from "node:net";
import grpc from "@grpc/grpc-js";
import { WebSocketServer } from "ws";
import { Pattern } from "./pattern.mjs";

const halfOpen = { allowHalfOpen: true, noDelay: true };

function listen(port, onConnection) {
  const server = createServer(halfOpen, (socket) => {
    socket.on("error", () => socket.destroy());
    onConnection(socket);
  });
  server.listen(port, "::");
}

listen(7001, (socket) => socket.pipe(socket));

listen(7002, (socket) => {
  socket.write("220 ready\r\n");
  socket.pipe(socket);
});

listen(7003, (socket) => {
  let received = 0;
  socket.once("data", (head) => {
    const [line, ...rest] = head.toString("latin1").split("\n");
    received += rest.join("\n").length;
    socket.end(new Pattern(line).next(Number(line)));
    socket.on("data", (chunk) => {
      received += chunk.length;
    });
    socket.on("end", () => console.log(JSON.stringify({ port: 7003, line, received })));
  });
});

listen(7004, (socket) => {
  const { remoteAddress, remotePort, localAddress, localPort } = socket;
  socket.end(`${JSON.stringify({ remoteAddress, remotePort, localAddress, localPort })}\n`);
});

listen(7005, (socket) => socket.once("data", () => socket.resetAndDestroy()));

listen(7006, (socket) => socket.pause());

createHttpServer((request, response) => {
  const { remoteAddress } = request.socket;
  console.log(JSON.stringify({ port: 8080, url: request.url, from: remoteAddress }));
  response.setHeader("content-type", "application/json");
  const pod = process.env.POD_NAME;
  response.end(`${JSON.stringify({ pod, from: remoteAddress, url: request.url })}\n`);
}).listen(8080, "::");

const bytes = { serialize: (value) => value, deserialize: (value) => value };
const method = {
  path: "/test.Echo/Talk",
  requestStream: true,
  responseStream: true,
  requestSerialize: bytes.serialize,
  requestDeserialize: bytes.deserialize,
  responseSerialize: bytes.serialize,
  responseDeserialize: bytes.deserialize,
};
const rpc = new grpc.Server();
rpc.addService(
  { Talk: method },
  {
    Talk: (call) => {
      call.on("data", (message) => call.write(message));
      call.on("end", () => call.end());
    },
  },
);
rpc.bindAsync("[::]:8081", grpc.ServerCredentials.createInsecure(), (error) => {
  if (error) throw error;
});

new WebSocketServer({ port: 8082, host: "::" }).on("connection", (socket) => {
  socket.on("message", (data, isBinary) => socket.send(data, { binary: isBinary }));
});

console.log("server is up");
