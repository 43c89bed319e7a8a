/**
 * Sessions that are shared by connections with the same key.
 *
 * At most one handshake per key is under way; whoever needs the same session meanwhile waits for
 * it and shares its outcome, a failure too, so that a dead peer costs its callers one timeout.
 */
import { reasonOf } from "#core/errors.ts";
import { ClientContexts } from "../tls/contexts.ts";
import { OutboundSession, secure } from "./connect.ts";
import { dial } from "./dial.ts";
import type { ConnectRequest, SessionTarget } from "./engine.ts";
import { type Failed, failed, type Opened } from "./parts.ts";
import type { HboneSettings } from "./settings.ts";

type SessionResult = { readonly kind: "session" } | Failed;

/** A session whose other end has hung up is over: half of TLS is of no use to it. */
const SESSION_SOCKET = { allowHalfOpen: false, highWaterMark: 64 * 1024 } as const;

export class SessionPool {
  readonly #settings: HboneSettings;
  readonly #contexts = new ClientContexts();
  /** Sessions that take more streams. */
  readonly #usable = new Map<string, Set<OutboundSession>>();
  readonly #opening = new Map<string, Promise<SessionResult>>();
  readonly #sessions = new Set<OutboundSession>();
  #isDraining = false;

  readonly #onChange: () => void;

  /** @param onChange  a session is gone */
  constructor(settings: HboneSettings, onChange: () => void) {
    this.#settings = settings;
    this.#onChange = onChange;
  }

  get size(): number {
    return this.#sessions.size;
  }

  readonly open = async (
    target: SessionTarget,
    request: ConnectRequest,
    signal: AbortSignal,
  ): Promise<Opened> => {
    const found = this.#find(target.key);
    if (found) {
      const opened = await found.open(request, signal);
      // A session that was left over can turn out to be dead or on its way out, and a stream of it
      // to have never been seen. Nothing but CONNECT has been sent, so a new session may ask again.
      if (opened.kind === "opened" || opened.failure.kind !== "http2") return opened;
      found.retire();
    }
    return this.#openAnew(target, request, signal);
  };

  /** Opens no more sessions; those that are open end with their last stream. */
  drain(): void {
    this.#isDraining = true;
    for (const session of this.#sessions) session.leave();
  }

  abort(reason: string): void {
    this.#isDraining = true;
    for (const session of this.#sessions) session.abort(reason);
  }

  async #openAnew(
    target: SessionTarget,
    request: ConnectRequest,
    signal: AbortSignal,
  ): Promise<Opened> {
    // Each turn waits for one handshake, and more streams than one session takes need several.
    while (!signal.aborted) {
      if (this.#isDraining) return failed("draining", "the engine is shutting down");
      const result = await this.#session(target);
      if (result.kind === "failed") return result;
      const session = this.#find(target.key);
      if (session) return session.open(request, signal);
    }
    return failed("downstreamClosed", "the other side went away");
  }

  /** @returns a session with a place reserved */
  #find(key: string): OutboundSession | undefined {
    for (const session of this.#usable.get(key) ?? []) {
      if (session.reserve()) return session;
    }
    return undefined;
  }

  #session(target: SessionTarget): Promise<SessionResult> {
    const underWay = this.#opening.get(target.key);
    if (underWay) return underWay;
    const opening = this.#handshake(target).finally(() => this.#opening.delete(target.key));
    this.#opening.set(target.key, opening);
    return opening;
  }

  async #handshake(target: SessionTarget): Promise<SessionResult> {
    const context = this.#contextOf(target);
    if ("kind" in context) return context;
    const dialled = await dial(target.dial, SESSION_SOCKET);
    if (dialled.kind === "failed") return dialled;
    const { handshakeTimeoutMs } = this.#settings;
    const tls = await secure(dialled.socket, context, target.refusePeer, handshakeTimeoutMs);
    if (tls.kind === "failed") return tls;
    if (tls.socket.destroyed) return failed("tls", "the other end hung up after the handshake");
    const session = new OutboundSession(tls.socket, tls.uris, this.#settings, {
      onUnusable: (unusable) => this.#forget(target.key, unusable),
      onClose: (closed) => {
        this.#sessions.delete(closed);
        this.#onChange();
      },
    });
    this.#sessions.add(session);
    const silent = await session.ready;
    if (silent !== undefined) {
      return failed(
        "tls",
        `the other end does not go on, it may refuse our certificate: ${silent}`,
      );
    }
    if (this.#isDraining) session.leave();
    // Or those who wait would open one session after another.
    if (!session.hasPlace) {
      session.retire();
      return failed("http2", "the other end takes no streams");
    }
    const usable = this.#usable.get(target.key);
    if (usable) usable.add(session);
    else this.#usable.set(target.key, new Set([session]));
    return { kind: "session" };
  }

  #contextOf(target: SessionTarget) {
    try {
      return this.#contexts.of(target.material);
    } catch (error) {
      return failed("tls", `our own certificate cannot be used: ${reasonOf(error)}`);
    }
  }

  #forget(key: string, session: OutboundSession): void {
    const usable = this.#usable.get(key);
    usable?.delete(session);
    if (usable?.size === 0) this.#usable.delete(key);
  }
}
