/** The end of the agent that serves: waits for a successor, and hands over to it. */
import { once } from "node:events";
import { rmSync } from "node:fs";
import { createServer, type Socket } from "node:net";
import { MeshError, reasonOf } from "#core/errors.ts";
import type { Logger } from "../log.ts";
import type { Timers } from "../timers.ts";
import { listenInPlace } from "../unix-socket.ts";
import { Channel } from "./channel.ts";
import {
  type HandOver,
  type HandOverCommand,
  type HandOverEvent,
  next,
  SERVING,
} from "./hand-over.ts";
import {
  type FromPredecessor,
  type FromSuccessor,
  PROTOCOL,
  parseFromSuccessor,
} from "./messages.ts";

/** What an agent gives up when another takes over. */
export interface Estate {
  /**
   * Ends all that only one process may do, and lets go of ports and sockets. Pods are served on.
   *
   * @returns the uids of the pods that are up
   */
  release(): Promise<readonly string[]>;
  /** Takes back what `release()` gave up, and the slots of the pods. */
  reclaim(): Promise<void>;
  /** Serves to their end the connections that it has, and whoever still comes to it; then ends. */
  cede(): void;
}

export interface TakeOverServer {
  readonly phase: HandOver["phase"];
  /** Resolves once nobody is in the middle of taking over. */
  settled(): Promise<void>;
  /** Whoever is about to take over finds itself alone. */
  close(): void;
}

export interface TakeOverServerOptions {
  readonly path: string;
  readonly estate: Estate;
  readonly timers: Timers;
  readonly log: Logger;
}

/** From `take` to `done`: a pod takes 20 ms, and nothing else may be slow. */
const LIMIT_MS = 30_000;

type SuccessorChannel = Channel<FromSuccessor, FromPredecessor>;

/** Listens in the place of whoever did so before: the path always leads to somebody. */
export async function serveTakeOver(options: TakeOverServerOptions): Promise<TakeOverServer> {
  const loop = new HandOverLoop(options);
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.once("close", () => sockets.delete(socket));
    loop.meet(socket);
  });
  await listenInPlace(options.path, async (temporary) => {
    const listening = once(server, "listening");
    server.listen(temporary);
    await listening;
  });
  return {
    get phase() {
      return loop.phase;
    },
    settled: () => loop.settled(),
    close: () => {
      server.close();
      for (const socket of sockets) socket.destroy();
      if (loop.phase !== "ceded") rmSync(options.path, { force: true });
    },
  };
}

class HandOverLoop {
  readonly #options: TakeOverServerOptions;
  #state: HandOver = SERVING;
  #channel: SuccessorChannel | undefined;
  #cancelLimit: (() => void) | undefined;
  #successorPid = 0;
  #released: readonly string[] = [];
  /** Commands that take time, one after the other. */
  #work: Promise<void> = Promise.resolve();
  #wakeSettled: (() => void)[] = [];

  constructor(options: TakeOverServerOptions) {
    this.#options = options;
  }

  get phase(): HandOver["phase"] {
    return this.#state.phase;
  }

  async settled(): Promise<void> {
    while (!["serving", "attended", "withdrawn", "ceded"].includes(this.#state.phase)) {
      await new Promise<void>((resolve) => this.#wakeSettled.push(resolve));
    }
    await this.#work;
  }

  meet(socket: Socket): void {
    const channel: SuccessorChannel = new Channel(socket, parseFromSuccessor);
    channel.onMessage = (message) => {
      if (this.#channel === channel) return this.#handle({ kind: message.kind });
      const refusal = this.#refusalOf(message);
      if (refusal !== undefined) {
        channel.send({ kind: "refused", reason: refusal });
        return channel.close();
      }
      this.#channel = channel;
      this.#successorPid = message.kind === "hello" ? message.pid : 0;
      this.#handle({ kind: message.kind });
    };
    void channel.ended.then(() => {
      if (this.#channel !== channel) return;
      this.#channel = undefined;
      this.#handle({ kind: "ended" });
    });
  }

  #refusalOf(message: FromSuccessor): string | undefined {
    if (message.kind !== "hello") return "expected a greeting first";
    if (message.protocol !== PROTOCOL) {
      return `it takes over by protocol ${message.protocol}, not ${PROTOCOL}`;
    }
    if (this.#state.phase !== "serving") return `process ${this.#successorPid} is taking over`;
    return undefined;
  }

  #handle(event: HandOverEvent): void {
    const { state, commands } = next(this.#state, event);
    this.#state = state;
    for (const command of commands) this.#execute(command);
    for (const wake of this.#wakeSettled.splice(0)) wake();
  }

  #execute({ kind }: HandOverCommand): void {
    const { log, timers, estate } = this.#options;
    const successor = { successor: this.#successorPid };
    switch (kind) {
      case "welcome":
        log.info(successor, "another agent is about to take over");
        this.#channel?.send({ kind: "welcome", pid: process.pid });
        return;
      case "startLimit":
        this.#cancelLimit = timers.after(LIMIT_MS, () => this.#handle({ kind: "limitReached" }));
        return;
      case "stopLimit":
        this.#cancelLimit?.();
        return;
      case "release":
        this.#release();
        return;
      case "sayReleased":
        this.#channel?.send({ kind: "released", pods: this.#released });
        return;
      case "reclaim":
        this.#do(async () => {
          await estate.reclaim();
          log.warn(successor, "the other agent did not take over: this one goes on");
        });
        return;
      case "sayWithdrawn":
        this.#channel?.send({ kind: "withdrawn", reason: "it took too long, or broke the rules" });
        return;
      case "cede":
        this.#channel?.send({ kind: "ceded" });
        log.info(successor, "another agent has taken over: serving what is open to its end");
        estate.cede();
        return;
    }
  }

  #release(): void {
    const channel = this.#channel;
    this.#do(async () => {
      this.#released = await this.#options.estate.release();
      // Not to another successor that came meanwhile: what it asked for is in the queue behind.
      const isAwaited = this.#channel === channel && this.#state.phase === "releasing";
      if (isAwaited) this.#handle({ kind: "released" });
    });
  }

  #do(work: () => Promise<void>): void {
    this.#work = this.#work.then(work).catch((error: unknown) => {
      this.#options.log.error({ error: reasonOf(error) }, "hand-over failed");
      if (!(error instanceof MeshError)) throw error;
    });
  }
}
