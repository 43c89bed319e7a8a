/**
 * Lets calls of known callers through to the services of a gRPC server, and no others.
 *
 * A service would only see a caller's headers together with the message, when the message has been
 * read into memory already. This looks at the headers first, so that strangers cost nothing.
 */
import {
  type Metadata,
  ServerInterceptingCall,
  type ServerInterceptingCallInterface,
  type ServerInterceptor,
  type ServerListener,
  status,
} from "@grpc/grpc-js";
import { reasonOf } from "#core/errors.ts";
import type { Authenticate, Authentication, Caller, CallerRefusedEvent } from "./caller.ts";

export class CallerGate {
  /** For the server's option `interceptors`. */
  readonly interceptor: ServerInterceptor;
  readonly #authenticate: Authenticate;
  readonly #onEvent: (event: CallerRefusedEvent) => void;
  // Services are handed the very headers that passed here.
  readonly #callers = new WeakMap<Metadata, Caller>();

  /** @param onEvent  must not throw */
  constructor(authenticate: Authenticate, onEvent: (event: CallerRefusedEvent) => void) {
    this.#authenticate = authenticate;
    this.#onEvent = onEvent;
    this.interceptor = (_, call) =>
      new ServerInterceptingCall(call, { start: (next) => next(this.#listener(call)) });
  }

  /** Who made the call that has these headers. */
  callerOf(headers: Metadata): Caller {
    const caller = this.#callers.get(headers);
    if (!caller) throw new TypeError("a call has come past the gate");
    return caller;
  }

  #listener(call: ServerInterceptingCallInterface): ServerListener {
    let isCancelled = false;
    return {
      onCancel: () => {
        isCancelled = true;
      },
      onReceiveMetadata: async (headers, pass) => {
        const authentication = await this.#check(headers);
        // A service that hears of it only now would never hear that it is over.
        if (isCancelled) return;
        if (authentication.kind === "refused") {
          const { reason } = authentication;
          call.sendStatus({ code: status.UNAUTHENTICATED, details: reason });
          this.#onEvent({ kind: "callerRefused", peer: call.getPeer(), reason });
          return;
        }
        this.#callers.set(headers, authentication.caller);
        pass(headers);
      },
    };
  }

  /** What an authenticator throws is a refusal too: nobody gets in by breaking it. */
  async #check(headers: Metadata): Promise<Authentication> {
    const [, bearerToken] = /^Bearer ([^ ]+)$/i.exec(textOf(headers, "authorization") ?? "") ?? [];
    try {
      return await this.#authenticate({ bearerToken, clusterId: textOf(headers, "clusterid") });
    } catch (error) {
      return { kind: "refused", reason: `Cannot check the caller: ${reasonOf(error)}` };
    }
  }
}

function textOf(headers: Metadata, key: string): string | undefined {
  return headers.get(key)[0]?.toString();
}
