/** Cuts a stream of text into lines, of which none is longer than it may be. */
export class LineSplitter {
  readonly #onLine: (line: string) => void;
  readonly #onTooLong: (start: string) => void;
  readonly #lengthMax: number;
  #rest = "";
  /** In a line that has been reported as too long: skips what is left of it. */
  #isSkipping = false;

  constructor(
    lengthMax: number,
    onLine: (line: string) => void,
    onTooLong: (start: string) => void,
  ) {
    this.#lengthMax = lengthMax;
    this.#onLine = onLine;
    this.#onTooLong = onTooLong;
  }

  push(text: string): void {
    const lines = (this.#rest + text).split("\n");
    this.#rest = lines.pop() ?? "";
    for (const line of lines) this.#give(line);
    if (this.#rest.length <= this.#lengthMax) return;
    if (!this.#isSkipping) this.#onTooLong(this.#rest);
    this.#isSkipping = true;
    this.#rest = "";
  }

  /** The stream is over: what is left is a line too. */
  end(): void {
    const rest = this.#rest;
    this.#rest = "";
    if (rest !== "" || this.#isSkipping) this.#give(rest);
  }

  #give(line: string): void {
    if (this.#isSkipping) this.#isSkipping = false;
    else if (line.length > this.#lengthMax) this.#onTooLong(line);
    else this.#onLine(line);
  }
}
