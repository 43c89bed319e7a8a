import pino, { type DestinationStream, type Logger } from "pino";

export const LEVELS = ["error", "warn", "info", "debug"] as const;

export interface LogSettings {
  /** JSON for machines, or a line that a person can read. */
  readonly format: "json" | "plain";
  readonly level: (typeof LEVELS)[number];
}

export type { Logger };

/** @param output  where lines go; standard output unless a test wants them */
export function openLog({ format, level }: LogSettings, output?: DestinationStream): Logger {
  const lines = output ?? pino.destination({ dest: 1, sync: true });
  return pino(
    {
      level,
      base: null,
      messageKey: "message",
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
    },
    format === "json" ? lines : { write: (line: string) => lines.write(plainLine(line)) },
  );
}

/** Time, level, message and `key=value`, separated by tabs. */
function plainLine(json: string): string {
  // Written by pino a moment ago.
  const { time, level, message, ...fields } = JSON.parse(json) as Record<string, unknown>;
  const pairs = Object.entries(fields).map(([key, value]) => `${key}=${plainValue(value)}`);
  return `${[time, level, message, pairs.join(" ")].filter((part) => part !== "").join("\t")}\n`;
}

function plainValue(value: unknown): string {
  const text = typeof value === "string" ? value : JSON.stringify(value);
  return /^[^\s"=]+$/.test(text) ? text : JSON.stringify(text);
}
