import type { Socket } from "node:net";

/** The uids of ten thousand pods have less. */
const LINE_BYTES_MAX = 1024 * 1024;

/** One end of a conversation in lines of JSON. */
export class Channel<Incoming, Outgoing> {
  /** Resolves when the other end has gone, or has said what nobody understands. */
  readonly ended: Promise<void>;
  onMessage: (message: Incoming) => void = () => undefined;
  readonly #socket: Socket;
  readonly #parse: (line: string) => Incoming;
  #rest = "";

  /** @param parse  throws for what is no message */
  constructor(socket: Socket, parse: (line: string) => Incoming) {
    this.#socket = socket;
    this.#parse = parse;
    socket.setEncoding("utf8");
    // Followed by a close, which says as much.
    socket.on("error", () => undefined);
    socket.on("data", (text: string) => this.#read(text));
    // Half of a conversation is none.
    socket.on("end", () => socket.destroy());
    this.ended = new Promise((resolve) => socket.once("close", () => resolve()));
  }

  send(message: Outgoing): void {
    if (this.#socket.writable) this.#socket.write(`${JSON.stringify(message)}\n`);
  }

  /** What was sent still goes out. */
  close(): void {
    this.#socket.end();
  }

  #read(text: string): void {
    const lines = (this.#rest + text).split("\n");
    this.#rest = lines.pop() ?? "";
    try {
      if (this.#rest.length > LINE_BYTES_MAX) throw new SyntaxError("the line is too long");
      for (const line of lines) this.onMessage(this.#parse(line));
    } catch (error) {
      if (!(error instanceof SyntaxError)) throw error;
      this.#socket.destroy();
    }
  }
}
