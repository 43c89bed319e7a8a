/**
 * The runtime's own process in the fabric's network: the cluster DNS, and the runtime's ear at the
 * control server. Ends when the runtime does.
 *
 *   node local/fabric/main.ts [URL of the control server's admin port]
 */
import { DNS_ADDRESS } from "../addresses.ts";
import { readJsonLines, writeJsonLine } from "../json-lines.ts";
import { ControlWatch } from "./control-watch.ts";
import { DnsServer } from "./dns-server.ts";
import type { FromFabric, ToFabric } from "./messages.ts";

const tell = (message: FromFabric) => writeJsonLine(process.stdout, message);
const [controlUrl] = process.argv.slice(2);

const dns = new DnsServer();
const control = controlUrl === undefined ? undefined : new ControlWatch(controlUrl);
readJsonLines(process.stdin, (value) => {
  const message = value as ToFabric; // from our own parent, by the types of messages.ts
  switch (message.kind) {
    case "zone":
      dns.zone = message.zone;
      break;
    case "ask":
      control?.ask(message.number);
      break;
  }
});
process.stdin.once("end", () => process.exit(0));
process.once("SIGTERM", () => process.exit(0));

await dns.listen([DNS_ADDRESS.ipv4, DNS_ADDRESS.ipv6], 53);
tell({ kind: "listening" });
const forever = new AbortController().signal;
await control?.run((state, answers) => tell({ kind: "control", ...state, answers }), forever);
