/**
 * An agent in a process of its own: enrols one pod, answers on all its slots, and says "ready".
 * Uninstalls when it is told to end; not when it is killed.
 *
 *   agent-process.ts NAME CGROUP_ROOT NETNS UID IP...
 */
import { parseIp } from "#core/ip.ts";
import { openNetns } from "#native/kernel/index.ts";
import { Rig } from "./rig.ts";

const [name = "", cgroupRoot = "", netnsPath = "", uid = "", ...ips] = process.argv.slice(2);
const rig = new Rig({ name, cgroupRoot });
const netns = openNetns(netnsPath);
const capture = rig.datapath.enrol({ uid, netns, addresses: ips.map(parseIp), id: 1 });
await rig.listen(netns, capture);
capture.unblock();
process.once("SIGTERM", () => void rig.close());
process.stdout.write("ready\n");
