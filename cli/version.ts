import { readFileSync } from "node:fs";

export function readVersion(): string {
  const file = new URL("../package.json", import.meta.url);
  // Our own file, and checked in.
  return (JSON.parse(readFileSync(file, "utf8")) as { readonly version: string }).version;
}
