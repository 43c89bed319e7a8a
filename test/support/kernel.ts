import { readFileSync } from "node:fs";
import os from "node:os";
import type { TestContext } from "node:test";

/**
 * Skips `t` on a kernel older than `since`, and on no other.
 *
 * A test that skips itself whenever a call fails goes green on the day the feature breaks. So
 * nothing is probed: on a kernel that is new enough the test runs, and a failure is a failure.
 *
 * @returns false where the test has been skipped and should return
 */
export function requireKernel(t: TestContext, since: string, feature: string): boolean {
  if (compareVersions(os.release(), since) >= 0) return true;
  t.skip(`${feature} needs Linux ${since}, this is ${os.release()}`);
  return false;
}

/** Where cgroup2 is mounted: at /sys/fs/cgroup, or below it on hosts that have both versions. */
export function cgroup2Root(): string {
  const mounts = readFileSync("/proc/self/mounts", "utf8").split("\n");
  const path = mounts.map((line) => line.split(" ")).find(([, , type]) => type === "cgroup2")?.[1];
  if (path === undefined) throw new Error("cgroup2 is not mounted");
  return path;
}

/** Waits until `condition` holds. @throws Error after `limitMs` */
export async function until(
  what: string,
  condition: () => boolean | Promise<boolean>,
  limitMs = 5_000,
): Promise<void> {
  const deadlineMs = Date.now() + limitMs;
  while (!(await condition())) {
    if (Date.now() > deadlineMs) throw new Error(`Waited ${limitMs} ms in vain until ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

function compareVersions(a: string, b: string): number {
  const [majorA = 0, minorA = 0] = a.split(".").map((part) => Number.parseInt(part, 10));
  const [majorB = 0, minorB = 0] = b.split(".").map((part) => Number.parseInt(part, 10));
  return majorA - majorB || minorA - minorB;
}
