import { TunnelListener } from "./accept.ts";
import type {
  EngineLoad,
  Listener,
  PlainConnection,
  Relay,
  TunnelEngine,
  TunnelListenerOptions,
} from "./engine.ts";
import { InboundHandshakes } from "./handshake.ts";
import type { EngineParts } from "./parts.ts";
import { PlainListener } from "./plain.ts";
import { SessionPool } from "./pool.ts";
import { ReadBuffers } from "./reading.ts";
import { DEFAULT_HBONE_SETTINGS, type HboneSettings } from "./settings.ts";

/**
 * The tunnel over node:tls and node:http2.
 *
 * @param settings  those that differ from `DEFAULT_HBONE_SETTINGS`
 */
export function createHboneEngine(settings: Partial<HboneSettings> = {}): TunnelEngine {
  return new NodeEngine({ ...DEFAULT_HBONE_SETTINGS, ...settings });
}

/** setTimeout() takes no more than this (24.8 days): a longer limit is none. */
const DELAY_MS_MAX = 2 ** 31 - 1;

class NodeEngine implements TunnelEngine {
  readonly #parts: EngineParts;
  readonly #pool: SessionPool;
  readonly #handshakes: InboundHandshakes;
  readonly #plainListeners = new Set<PlainListener>();
  readonly #tunnelListeners = new Set<TunnelListener>();
  readonly #relays = new Set<Relay>();
  /** Called whenever something has ended, while a drain waits for that. */
  #onEnd: () => void = () => {};

  constructor(settings: HboneSettings) {
    this.#pool = new SessionPool(settings, () => this.#onEnd());
    this.#handshakes = new InboundHandshakes(settings);
    this.#parts = {
      settings,
      readBuffers: new ReadBuffers(),
      openTunnel: this.#pool.open,
      addRelay: (relay) => this.#addRelay(relay),
    };
  }

  listenPlain(listenerFd: number, onConnection: (connection: PlainConnection) => void): Listener {
    const listener = new PlainListener(listenerFd, this.#parts, onConnection, (changed) => {
      if (changed.isGone) this.#plainListeners.delete(changed);
    });
    this.#plainListeners.add(listener);
    return listener;
  }

  listenTunnel(listenerFd: number, options: TunnelListenerOptions): Listener {
    const onChange = (changed: TunnelListener) => {
      if (changed.isGone) this.#tunnelListeners.delete(changed);
      this.#onEnd();
    };
    const listener = new TunnelListener(
      listenerFd,
      options,
      this.#parts,
      this.#handshakes,
      onChange,
    );
    this.#tunnelListeners.add(listener);
    return listener;
  }

  load(): EngineLoad {
    const tunnels = [...this.#tunnelListeners];
    return {
      listeners: this.#listeners().filter((listener) => listener.isAccepting).length,
      inboundSessions: tunnels.reduce((sum, listener) => sum + listener.sessionCount, 0),
      outboundSessions: this.#pool.size,
      relays: this.#relays.size,
    };
  }

  /** Waits for the sessions too: a request that is on its way may become a relay yet. */
  drain(limitMs: number): Promise<void> {
    for (const listener of this.#listeners()) listener.close();
    this.#pool.drain();
    return new Promise((resolve) => {
      const finish = () => {
        clearTimeout(timer);
        this.#onEnd = () => {};
        resolve();
      };
      const abort = () => {
        this.#abort(`did not end within the ${limitMs} ms of a drain`);
        finish();
      };
      const timer = limitMs > DELAY_MS_MAX ? undefined : setTimeout(abort, limitMs);
      this.#onEnd = () => {
        if (this.#isIdle()) finish();
      };
      this.#onEnd();
    });
  }

  close(): void {
    this.#abort("the engine was closed");
  }

  #abort(reason: string): void {
    for (const relay of this.#relays) relay.abort(reason);
    for (const listener of this.#listeners()) listener.abort();
    this.#pool.abort(reason);
  }

  #listeners(): readonly (PlainListener | TunnelListener)[] {
    return [...this.#plainListeners, ...this.#tunnelListeners];
  }

  #isIdle(): boolean {
    return this.#relays.size === 0 && this.#pool.size === 0 && this.#tunnelListeners.size === 0;
  }

  #addRelay(relay: Relay): void {
    this.#relays.add(relay);
    void relay.ended.then(() => {
      this.#relays.delete(relay);
      this.#onEnd();
    });
  }
}
