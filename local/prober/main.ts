/**
 * A node's prober, as the kubelet is: a process in the node's network, in a cgroup of its own, that
 * connects to pods and says how it went. Ends when the runtime does.
 */
import { readJsonLines, writeJsonLine } from "../json-lines.ts";
import { attempt } from "../pod/prober.ts";
import type { FromProber, ToProber } from "./messages.ts";

readJsonLines(process.stdin, (value) => {
  const { number, spec, ip } = value as ToProber; // from our own parent, by the types of messages.ts
  // Commands run in containers, which is the runtime's part.
  void attempt(spec, { netnsPath: undefined, ip, enter: () => ["false"] }).then((outcome) => {
    writeJsonLine(process.stdout, { number, outcome } satisfies FromProber);
  });
});
process.stdin.once("end", () => process.exit(0));
process.once("SIGTERM", () => process.exit(0));
