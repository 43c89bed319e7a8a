/** Runs `nft` and `ip` inside a pod's network namespace. Each call takes some milliseconds. */
import { spawnSync } from "node:child_process";
import { MeshError } from "#core/errors.ts";
import type { Netns } from "#native/kernel/index.ts";
import { captureRules, removalRules, replyRoute, replyRouteRemoval, replyRule } from "./rules.ts";

/** They wait for nothing but a lock of the kernel. */
const LIMIT_MS = 10_000;

/** What a program wrote where it failed; undefined where it did not. */
type Failure = string | undefined;

/** @throws MeshError `KERNEL_CALL_FAILED`, and then the old rules stand */
export function writeCapture(netns: Netns, isBlocked: boolean): void {
  require(netns, "nft", ["-f", "-"], captureRules(isBlocked));
}

/** Lets replies in a client's name come back to the agent. Succeeds where they do already. */
export function writeReplyRoutes(netns: Netns, families: readonly ("ipv4" | "ipv6")[]): void {
  for (const family of families) {
    require(netns, "ip", replyRoute(family));
    const failure = run(netns, "ip", replyRule(family, "add"));
    if (failure !== undefined && !failure.includes("File exists")) throw failed("ip", failure);
  }
}

/** Removes all of it, as far as it is there. */
export function removeAll(netns: Netns): void {
  require(netns, "nft", ["-f", "-"], removalRules());
  for (const family of ["ipv4", "ipv6"] as const) {
    // No such rule, no such table, no IPv6 at all: each means that nothing is there.
    run(netns, "ip", replyRule(family, "del"));
    run(netns, "ip", replyRouteRemoval(family));
  }
}

function require(netns: Netns, program: string, args: readonly string[], input = ""): void {
  const failure = run(netns, program, args, input);
  if (failure !== undefined) throw failed(`${program} in "${netns.path}"`, failure);
}

function failed(what: string, reason: string): MeshError {
  return new MeshError("KERNEL_CALL_FAILED", `Cannot run ${what}: ${reason}`);
}

function run(netns: Netns, program: string, args: readonly string[], input = ""): Failure {
  const path = `/proc/${process.pid}/fd/${netns.fd}`;
  return runProgram("nsenter", [`--net=${path}`, "--", program, ...args], input);
}

/** Runs a program to its end. @returns what it complained of */
export function runProgram(program: string, args: readonly string[], input: string): Failure {
  const { error, status, signal, stderr } = spawnSync(program, args, {
    input,
    encoding: "utf8",
    timeout: LIMIT_MS,
    stdio: ["pipe", "ignore", "pipe"],
  });
  if (error) return error.message;
  if (status === 0) return undefined;
  return stderr.trim().replaceAll(/\s*\n\s*/g, "; ") || `ended with ${status ?? signal}`;
}
