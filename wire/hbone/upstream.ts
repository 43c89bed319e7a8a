/** Opens what a connection is to be joined with. */
import { dial } from "./dial.ts";
import { type End, tcpEnd } from "./end.ts";
import type { Upstream } from "./engine.ts";
import { type EngineParts, type Opened, RELAY_SOCKET } from "./parts.ts";

export async function openUpstream(
  upstream: Upstream,
  { openTunnel }: EngineParts,
  signal: AbortSignal,
): Promise<Opened> {
  switch (upstream.kind) {
    case "tunnel":
      return openTunnel(upstream.session, upstream.request, signal);
    case "tcp": {
      const dialled = await dial(upstream.dial, RELAY_SOCKET, signal);
      if (dialled.kind === "failed") return dialled;
      const end = tcpEnd(dialled.socket);
      return { kind: "opened", end, responseHeaders: new Map(), peerUris: [] };
    }
  }
}

/** Drops what was opened for somebody who did not wait for it. */
export function discard(end: End): void {
  end.stream.on("error", () => {});
  end.reset();
}
