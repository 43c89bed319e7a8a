import { createHash } from "node:crypto";

/** Eight characters that change with the value: enough to tell templates of one name apart. */
export function hashOf(value: unknown): string {
  return createHash("sha256").update(JSON.stringify(value)).digest("hex").slice(0, 8);
}
