import { createServer, type Server } from "node:net";
import { MeshError } from "#core/errors.ts";

/** Held for as long as the process lives. */
export interface Lock {
  release(): void;
}

/**
 * Makes sure that there is one runtime of a name on this host.
 *
 * An abstract unix socket (unix(7)): the kernel gives it to one process only, and takes it back
 * when that dies, however it dies. A file with a pid in it does neither.
 *
 * @throws MeshError `REQUEST_REFUSED` where another process holds it
 */
export async function takeLock(runtime: string): Promise<Lock> {
  const server: Server = createServer((socket) => socket.destroy());
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  server.once("error", reject);
  server.listen(`\0aquifer-local-${runtime}`, resolve);
  try {
    await promise;
  } catch (error) {
    if (!(error instanceof Error && "code" in error && error.code === "EADDRINUSE")) throw error;
    const hint = `see "aquifer local status --name ${runtime}", or choose another --name`;
    throw new MeshError("REQUEST_REFUSED", `Cannot start "${runtime}": it is running; ${hint}`);
  }
  server.unref();
  return { release: () => server.close() };
}
