/** Options that several commands have, and what their values may be. */
import { InvalidArgumentError, Option } from "commander";

export interface NameOption {
  readonly name: string;
}

export interface NamespaceOption {
  readonly namespace: string;
}

export function nameOption(): Option {
  return new Option("--name <name>", "the runtime").env("AQUIFER_LOCAL_NAME").default("default");
}

export function namespaceOption(): Option {
  return new Option("-n, --namespace <namespace>", "of the object").default("default");
}

export function outputOption(): Option {
  return new Option("-o, --output <format>", "for scripts").choices(["json"]);
}

export function filesOption(description: string): Option {
  return new Option("-f, --file <path>", description).argParser(collect).default([], "none");
}

export function collect(value: string, before: readonly string[]): readonly string[] {
  return [...before, value];
}

/** @throws InvalidArgumentError, which commander shows beside the option */
export function parseCount(text: string): number {
  if (!/^\d{1,9}$/.test(text)) throw new InvalidArgumentError("expected a number, 0 or more");
  return Number(text);
}
