import { createInterface } from "node:readline";

/** Calls `take` for each line of `stream`, which is one JSON value: what our own processes say. */
export function readJsonLines(stream: NodeJS.ReadableStream, take: (value: unknown) => void): void {
  createInterface({ input: stream, crlfDelay: Number.POSITIVE_INFINITY }).on("line", (line) => {
    take(JSON.parse(line));
  });
}

export function writeJsonLine(stream: NodeJS.WritableStream, value: unknown): void {
  stream.write(`${JSON.stringify(value)}\n`);
}
