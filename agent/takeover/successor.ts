/** The end of an agent that starts where another one serves: meets it, and takes over from it. */
import { connect, type Socket } from "node:net";
import { MeshError } from "#core/errors.ts";
import { Channel } from "./channel.ts";
import {
  type FromPredecessor,
  type FromSuccessor,
  PROTOCOL,
  parseFromPredecessor,
} from "./messages.ts";

/** An agent that is busy with a large push answers within a second or two. */
const GREETING_LIMIT_MS = 5_000;
/** It has its own limit, and says so when that is over. */
const RELEASE_LIMIT_MS = 40_000;

/** The agent that serves this node, as long as it lives. */
export interface RunningAgent {
  readonly pid: number;
  /** It has ended, or does not talk to us any more. */
  readonly isGone: boolean;
  /**
   * Asks it for everything that only one may hold.
   *
   * @returns the uids of the pods that are up there; none where it has gone
   * @throws MeshError `REQUEST_REFUSED` where it goes on by itself
   */
  release(): Promise<readonly string[]>;
  /**
   * Tells it that all its pods are served. From then on this process is the agent.
   *
   * @throws MeshError `REQUEST_REFUSED` where it goes on by itself
   */
  finish(): Promise<void>;
}

/**
 * @returns undefined where nobody serves this node
 * @throws MeshError `REQUEST_REFUSED` where whoever does cannot be taken over from
 */
export async function meetRunningAgent(path: string): Promise<RunningAgent | undefined> {
  const socket = await connectTo(path);
  if (socket === undefined) return undefined;
  const talk = new Talk(socket);
  talk.send({ kind: "hello", protocol: PROTOCOL, pid: process.pid });
  const answer = await talk.next(GREETING_LIMIT_MS);
  // It has ended between the two of us meeting.
  if (answer === undefined) return undefined;
  if (answer.kind !== "welcome") throw refusal(answer);
  return {
    pid: answer.pid,
    get isGone() {
      return talk.hasEnded;
    },
    release: async () => {
      talk.send({ kind: "take" });
      const released = await talk.next(RELEASE_LIMIT_MS);
      if (released === undefined) return [];
      if (released.kind !== "released") throw refusal(released);
      return released.pods;
    },
    finish: async () => {
      talk.send({ kind: "done" });
      const ceded = await talk.next(RELEASE_LIMIT_MS);
      if (ceded !== undefined && ceded.kind !== "ceded") throw refusal(ceded);
      talk.close();
    },
  };
}

function connectTo(path: string): Promise<Socket | undefined> {
  return new Promise((resolve, reject) => {
    const socket = connect({ path });
    socket.once("connect", () => resolve(socket));
    socket.once("error", (cause) => {
      const code = "code" in cause ? cause.code : undefined;
      // Nobody was ever here, or whoever was has been killed.
      if (code === "ENOENT" || code === "ECONNREFUSED") resolve(undefined);
      else reject(new MeshError("SETTINGS_INVALID", `Cannot use socket "${path}"`, { cause }));
    });
  });
}

function refusal(message: FromPredecessor): MeshError {
  const attempt = "Cannot take over from the agent that is running";
  const reason = "reason" in message ? message.reason : `it said "${message.kind}"`;
  return new MeshError("REQUEST_REFUSED", `${attempt}: ${reason}`);
}

/** Questions and answers, one at a time; what comes unasked is the answer to the next question. */
class Talk {
  readonly #channel: Channel<FromPredecessor, FromSuccessor>;
  readonly #heard: FromPredecessor[] = [];
  hasEnded = false;
  #wake: () => void = () => undefined;

  constructor(socket: Socket) {
    this.#channel = new Channel(socket, parseFromPredecessor);
    this.#channel.onMessage = (message) => {
      this.#heard.push(message);
      this.#wake();
    };
    void this.#channel.ended.then(() => {
      this.hasEnded = true;
      this.#wake();
    });
  }

  send(message: FromSuccessor): void {
    this.#channel.send(message);
  }

  /** @returns undefined where the other has ended without a word */
  async next(limitMs: number): Promise<FromPredecessor | undefined> {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    this.#wake = resolve;
    if (this.#heard.length > 0 || this.hasEnded) resolve();
    const timer = setTimeout(() => {
      const reason = `the agent that is running has not answered within ${limitMs} ms`;
      reject(new MeshError("REQUEST_REFUSED", `Cannot take over: ${reason}`));
    }, limitMs);
    try {
      await promise;
    } finally {
      clearTimeout(timer);
    }
    return this.#heard.shift();
  }

  close(): void {
    this.#channel.close();
  }
}
