/**
 * Logs by target ("access", "xds", …), each with a level of its own that can be changed while the
 * agent runs.
 */
import pino, { type DestinationStream, type Logger } from "pino";

export const LEVELS = ["off", "error", "warn", "info", "debug", "trace"] as const;
export type Level = (typeof LEVELS)[number];

/** `info,access=off`: a level for every target, and others for some. */
export interface LogLevels {
  readonly fallback: Level;
  readonly targets: ReadonlyMap<string, Level>;
}

export interface LogSettings {
  readonly format: "json" | "plain";
  readonly levels: LogLevels;
}

/** @throws SyntaxError where a level is none of `LEVELS` */
export function parseLogLevels(text: string): LogLevels {
  let fallback: Level = "info";
  const targets = new Map<string, Level>();
  for (const part of text.split(",").map((piece) => piece.trim())) {
    const [name = "", level, ...rest] = part.split("=");
    if (rest.length > 0 || part === "") throw new SyntaxError(`cannot read level "${part}"`);
    if (level === undefined) fallback = parseLevel(name);
    else targets.set(name, parseLevel(level));
  }
  return { fallback, targets };
}

export function formatLogLevels({ fallback, targets }: LogLevels): string {
  return [fallback, ...[...targets].map(([name, level]) => `${name}=${level}`)].join(",");
}

function parseLevel(text: string): Level {
  const level = LEVELS.find((candidate) => candidate === text.toLowerCase());
  if (level === undefined) throw new SyntaxError(`"${text}" is none of ${LEVELS.join(", ")}`);
  return level;
}

/** Hands out one logger per target, and knows them all when levels change. */
export class Loggers {
  readonly #root: Logger;
  readonly #initial: LogLevels;
  readonly #byTarget = new Map<string, Logger>();
  #levels: LogLevels;

  /** @param output  where lines go; standard output unless a test wants them */
  constructor({ format, levels }: LogSettings, output?: DestinationStream) {
    const lines = output ?? pino.destination({ dest: 1, sync: true });
    this.#root = pino(
      {
        level: "trace",
        base: null,
        messageKey: "message",
        timestamp: pino.stdTimeFunctions.isoTime,
        formatters: { level: (label) => ({ level: label }) },
      },
      format === "json" ? lines : { write: (line: string) => lines.write(toPlainLine(line)) },
    );
    this.#initial = levels;
    this.#levels = levels;
  }

  get levels(): LogLevels {
    return this.#levels;
  }

  for(target: string): Logger {
    const known = this.#byTarget.get(target);
    if (known) return known;
    const logger = this.#root.child(
      { target },
      { level: pinoLevel(levelOf(target, this.#levels)) },
    );
    this.#byTarget.set(target, logger);
    return logger;
  }

  setLevels(levels: LogLevels): void {
    this.#levels = levels;
    for (const [target, logger] of this.#byTarget) {
      logger.level = pinoLevel(levelOf(target, levels));
    }
  }

  reset(): void {
    this.setLevels(this.#initial);
  }
}

export type { Logger };

function levelOf(target: string, { fallback, targets }: LogLevels): Level {
  return targets.get(target) ?? fallback;
}

function pinoLevel(level: Level): string {
  return level === "off" ? "silent" : level;
}

/** Time, level, target, message and `key=value`, separated by tabs. */
function toPlainLine(json: string): string {
  // Written by pino a moment ago.
  const { time, level, target, message, ...fields } = JSON.parse(json) as Record<string, unknown>;
  const pairs = Object.entries(fields).map(([key, value]) => `${key}=${plainValue(value)}`);
  const head = [time, level, target, message].filter((part) => part !== undefined);
  return `${[...head, pairs.join(" ")].filter((part) => part !== "").join("\t")}\n`;
}

function plainValue(value: unknown): string {
  if (typeof value === "number" || typeof value === "boolean") return String(value);
  const text = typeof value === "string" ? value : JSON.stringify(value);
  return /^[^\s"=]+$/.test(text) ? text : JSON.stringify(text);
}
