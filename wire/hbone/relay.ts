/** Two directions of bytes between two ends. */
import type { End } from "./end.ts";
import type { Relay, RelayBytes, RelayReport } from "./engine.ts";

/**
 * How much may wait to be written to one end before reading from the other stops.
 *
 * Enough to keep a fast connection busy over one turn of the loop. A relay holds at most twice
 * this, and the window of one stream beside it.
 */
export const BUFFER_BYTES = 512 * 1024;

/** One direction: from `source` to `sink`. */
class Direction {
  readonly source: End;
  readonly sink: End;
  bytes = 0;
  /** Nothing more will be read from the source. */
  ended = false;
  /** Everything that was read has been handed to the sink's kernel or session, or dropped. */
  done = false;

  constructor(source: End, sink: End) {
    this.source = source;
    this.sink = sink;
  }
}

export class EndRelay implements Relay {
  readonly ended: Promise<RelayReport>;
  readonly #toUpstream: Direction;
  readonly #toDownstream: Direction;
  readonly #startedAtMs = performance.now();
  #report: (report: RelayReport) => void = () => {};
  #isOver = false;

  /** Starts at once. */
  constructor(downstream: End, upstream: End) {
    this.ended = new Promise((resolve) => {
      this.#report = resolve;
    });
    this.#toUpstream = new Direction(downstream, upstream);
    this.#toDownstream = new Direction(upstream, downstream);
    this.#carry(this.#toUpstream, this.#toDownstream, "downstream");
    this.#carry(this.#toDownstream, this.#toUpstream, "upstream");
  }

  bytes(): RelayBytes {
    return { fromDownstream: this.#toUpstream.bytes, toDownstream: this.#toDownstream.bytes };
  }

  abort(reason: string): void {
    if (this.#isOver) return;
    this.#toUpstream.source.reset();
    this.#toDownstream.source.reset();
    this.#conclude(reason);
  }

  /** @param back  the other direction, which writes to this one's source */
  #carry(direction: Direction, back: Direction, name: string): void {
    const { source, sink } = direction;
    const { stream: from } = source;
    const { stream: to } = sink;

    let isCorked = false;
    const uncork = () => {
      isCorked = false;
      to.uncork();
    };
    to.on("drain", () => from.resume());
    to.on("finish", () => this.#finish(direction));

    from.on("end", () => {
      const broken = source.brokenReason();
      if (broken === undefined) this.#end(direction);
      else this.#fail(direction, back, `${name}: ${broken}`);
    });
    from.on("error", (error: NodeJS.ErrnoException) => {
      this.#fail(direction, back, `${name}: ${source.brokenReason(error)}`);
    });
    const onClose = () => {
      const broken = source.brokenReason();
      if (broken !== undefined) this.#fail(direction, back, `${name}: ${broken}`);
      else this.#leave(direction, back);
    };
    from.on("close", onClose);
    // A stream can close in the very turn in which it opened, before anybody could listen.
    if (from.destroyed) setImmediate(onClose);
    source.read((chunk, written) => {
      direction.bytes += chunk.length;
      if (sink.collects && !isCorked) {
        isCorked = true;
        to.cork();
        setImmediate(uncork);
      }
      if (!to.write(chunk, written) && to.writableLength >= BUFFER_BYTES) from.pause();
    });
  }

  #end(direction: Direction): void {
    if (direction.ended) return;
    direction.ended = true;
    direction.sink.stream.end();
  }

  #finish(direction: Direction): void {
    direction.done = true;
    if (this.#toUpstream.done && this.#toDownstream.done) this.#conclude(undefined);
  }

  /** The source has left in both directions, in an orderly way: what is for it is dropped. */
  #leave(direction: Direction, back: Direction): void {
    if (this.#isOver) return;
    const wasEnded = back.ended;
    back.ended = true;
    this.#end(direction);
    if (!wasEnded) direction.sink.finish();
    this.#finish(back);
  }

  /**
   * A connection that breaks after its own end is orderly: it had said all that it had to say, and
   * may rightly refuse the rest. The other end learns of the rest being lost all the same.
   */
  #fail(direction: Direction, back: Direction, reason: string): void {
    if (this.#isOver) return;
    direction.sink.reset();
    back.sink.reset();
    this.#conclude(direction.ended ? undefined : reason);
  }

  #conclude(error: string | undefined): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#report({ ...this.bytes(), durationMs: performance.now() - this.#startedAtMs, error });
  }
}
