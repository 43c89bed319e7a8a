/** What processes have cost so far, from /proc. */
import { readFileSync } from "node:fs";

/** USER_HZ: the unit of times in /proc/PID/stat, 100 on every architecture that we run on. */
const TICKS_PER_SECOND = 100;

/** Fields of /proc/PID/stat after the command's name, counted from 0 (proc(5) counts from 3). */
const UTIME = 11;
const STIME = 12;

/** Processor time that the processes have used, in seconds, user and system together. */
export function cpuSeconds(pids: readonly number[]): number {
  const ticks = pids.map((pid) => {
    const stat = readFileSync(`/proc/${pid}/stat`, "latin1");
    // The command may hold spaces and parentheses: what counts begins after the last one.
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    return Number(fields[UTIME]) + Number(fields[STIME]);
  });
  return ticks.reduce((sum, value) => sum + value, 0) / TICKS_PER_SECOND;
}

/** Resident memory of all of them together, in MiB: now, or the highest each has had. */
export function residentMib(pids: readonly number[], moment: "now" | "peak"): number {
  const name = moment === "now" ? "VmRSS" : "VmHWM";
  const kib = pids.map((pid) => {
    const status = readFileSync(`/proc/${pid}/status`, "latin1");
    return Number(new RegExp(`^${name}:\\s+(\\d+) kB`, "m").exec(status)?.[1] ?? Number.NaN);
  });
  return kib.reduce((sum, value) => sum + value, 0) / 1024;
}

/** Has the next `residentMib(…, "peak")` count from now (proc(5), clear_refs). */
export function resetPeak(pids: readonly number[], write: (path: string, text: string) => void) {
  for (const pid of pids) write(`/proc/${pid}/clear_refs`, "5");
}
