/** Plain TCP connections that an application has made, and that capture brought here. */
import { createServer, type Server, type Socket } from "node:net";
import { MeshError } from "#core/errors.ts";
import type { SocketAddress } from "#core/ip.ts";
import { Connecting } from "./downstream.ts";
import { type End, tcpEnd } from "./end.ts";
import type { ConnectResult, Listener, PlainConnection, Upstream } from "./engine.ts";
import { type EngineParts, RELAY_SOCKET } from "./parts.ts";
import { SocketReader } from "./reading.ts";
import { endsOf, fdOf, KEEPALIVE_DELAY_MS, socketAddress, takeOver } from "./socket.ts";

/** Connections that the kernel completes while we are busy; it caps this at net.core.somaxconn. */
const BACKLOG = 4096;

export class PlainListener implements Listener {
  readonly address: SocketAddress;
  acceptedCount = 0;
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  readonly #onChange: (listener: PlainListener) => void;

  /** @param onChange  a socket is gone, or the listener is closed */
  constructor(
    fd: number,
    parts: EngineParts,
    onConnection: (connection: PlainConnection) => void,
    onChange: (listener: PlainListener) => void,
  ) {
    this.#onChange = onChange;
    this.#server = createServer(
      {
        pauseOnConnect: true,
        noDelay: true,
        keepAlive: true,
        keepAliveInitialDelay: KEEPALIVE_DELAY_MS,
      },
      (accepted) => {
        this.acceptedCount++;
        const reader = new SocketReader(parts.readBuffers);
        const socket = takeOver(accepted, { ...RELAY_SOCKET, onread: reader.onread });
        this.#sockets.add(socket);
        socket.on("close", () => {
          this.#sockets.delete(socket);
          onChange(this);
        });
        const ends = endsOf(socket);
        // Reset by the peer while it waited in the queue of the kernel.
        if (!ends) socket.destroy();
        else onConnection(new AcceptedConnection(socket, reader, ends, parts));
      },
    );
    this.address = listen(this.#server, fd);
  }

  get isAccepting(): boolean {
    return this.#server.listening;
  }

  get isGone(): boolean {
    return !this.isAccepting && this.#sockets.size === 0;
  }

  close(): void {
    this.#server.close();
    this.#onChange(this);
  }

  abort(): void {
    this.close();
    for (const socket of this.#sockets) socket.resetAndDestroy();
  }
}

/**
 * Listens on a descriptor, which belongs to the server from then on.
 *
 * @throws MeshError `KERNEL_CALL_FAILED` where the descriptor is no listening TCP socket
 */
export function listen(server: Server, fd: number): SocketAddress {
  // Node reports a descriptor that it cannot listen on only later. It is known here already.
  server.once("error", () => {});
  server.listen({ fd, backlog: BACKLOG });
  const address = server.address();
  const bound =
    address !== null && typeof address === "object"
      ? socketAddress(address.address, address.port)
      : undefined;
  if (!bound) {
    throw new MeshError(
      "KERNEL_CALL_FAILED",
      `Cannot listen on descriptor ${fd}: not a TCP socket`,
    );
  }
  return bound;
}

class AcceptedConnection implements PlainConnection {
  readonly peer: SocketAddress;
  readonly local: SocketAddress;
  readonly fd: number;
  readonly #socket: Socket;
  readonly #reader: SocketReader;
  readonly #connecting: Connecting;

  constructor(
    socket: Socket,
    reader: SocketReader,
    { peer, local }: { peer: SocketAddress; local: SocketAddress },
    parts: EngineParts,
  ) {
    this.peer = peer;
    this.local = local;
    this.fd = fdOf(socket);
    this.#socket = socket;
    this.#reader = reader;
    this.#connecting = new Connecting(parts);
    // An error is always followed by a close, and until a relay takes over nobody cares which.
    socket.on("error", () => {});
    socket.on("close", () => this.#connecting.goneAway());
  }

  connect(upstream: Upstream): Promise<ConnectResult> {
    return this.#connecting.connect(upstream, (): End => tcpEnd(this.#socket, this.#reader));
  }

  refuse(): void {
    if (!this.#socket.destroyed) this.#socket.resetAndDestroy();
  }
}
