/** Opens what a connection is to be joined with. */
import { dial } from "./dial.ts";
import { type End, tcpEnd } from "./end.ts";
import type { Upstream } from "./engine.ts";
import { type EngineParts, type Opened, RELAY_SOCKET } from "./parts.ts";
import { SocketReader } from "./reading.ts";

export async function openUpstream(
  upstream: Upstream,
  { openTunnel, readBuffers }: EngineParts,
  signal: AbortSignal,
): Promise<Opened> {
  switch (upstream.kind) {
    case "tunnel":
      return openTunnel(upstream.session, upstream.request, signal);
    case "tcp": {
      const reader = new SocketReader(readBuffers);
      const options = { ...RELAY_SOCKET, onread: reader.onread };
      const dialled = await dial(upstream.dial, options, signal);
      if (dialled.kind === "failed") return dialled;
      const end = tcpEnd(dialled.socket, reader);
      return { kind: "opened", end, responseHeaders: new Map(), peerUris: [] };
    }
  }
}

/** Drops what was opened for somebody who did not wait for it. */
export function discard(end: End): void {
  end.stream.on("error", () => {});
  end.reset();
}
