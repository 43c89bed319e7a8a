/**
 * What does the mesh cost between two nodes? The same pods, network and machine for both subjects:
 * one pair of pods is in the mesh, the other is not. Clients dial the pod's address.
 */
import { writeFileSync } from "node:fs";
import { eventually, LocalMesh } from "../test/support/local-mesh.ts";
import type { Figure, Sample } from "./figures.ts";
import { buildLoad, LOAD_PORT, measureLoad } from "./load.ts";
import type { Benchmark } from "./main.ts";
import { resetPeak, residentMib } from "./processes.ts";

const SUBJECTS = ["none", "ours"] as const;

export const mesh: Benchmark = {
  title: "the mesh between two nodes, against no mesh",
  baseline: "none",
  subjects: SUBJECTS,
  async run(work) {
    const program = await buildLoad();
    const rig = await LocalMesh.up({ name: "bench", manifests: manifests(program), nodes: 2 });
    const onSignal = () => void rig.down().finally(() => process.exit(1));
    process.once("SIGINT", onSignal);
    try {
      const { nodes } = await rig.status();
      const agents = nodes.flatMap(({ agent }) => agent?.pid ?? []);
      for (const subject of SUBJECTS) await warmUp(rig, program, subject);
      const idleMib = residentMib(agents, "now");
      await work((subject) => measure(rig, program, subject, agents, idleMib));
    } finally {
      process.off("SIGINT", onSignal);
      await rig.down();
    }
  },
};

async function measure(
  rig: LocalMesh,
  program: string,
  subject: string,
  agents: readonly number[],
  idleMib: number,
): Promise<Sample> {
  const isOurs = subject === "ours";
  const server = await rig.pod(`${subject}/server`);
  if (isOurs) resetPeak(agents, writeFileSync);
  const sample: Map<Figure, number> = await measureLoad(
    async (args) => {
      const { code, stdout, stderr } = await rig.exec(`${subject}/client`, [program, ...args]);
      if (code !== 0) throw new Error(`load ${args.join(" ")} failed for "${subject}": ${stderr}`);
      return stdout;
    },
    server.addresses[0] ?? "",
    isOurs ? agents : [],
  );
  if (isOurs) {
    sample.set("rss-idle", idleMib);
    sample.set("rss-peak", residentMib(agents, "peak"));
  }
  return sample;
}

/** Until the path is the one to be measured: the first connections fetch certificates. */
async function warmUp(rig: LocalMesh, program: string, subject: string): Promise<void> {
  const server = await rig.pod(`${subject}/server`);
  const args = ["requests", server.addresses[0] ?? "", String(LOAD_PORT), "1", "0.2"];
  await eventually(`"${subject}" to answer`, async () => {
    return (await rig.exec(`${subject}/client`, [program, ...args])).code === 0;
  });
}

function manifests(program: string): string {
  const pod = (namespace: string, name: string, node: string, command: readonly string[]) => `
apiVersion: v1
kind: Pod
metadata: { name: ${name}, namespace: ${namespace} }
spec:
  nodeName: ${node}
  containers: [{ name: ${name}, command: ${JSON.stringify(command)} }]
`;
  return SUBJECTS.flatMap((subject) => [
    `
apiVersion: v1
kind: Namespace
metadata:
  name: ${subject}
  labels: { istio.io/dataplane-mode: ${subject === "ours" ? "ambient" : "none"} }
`,
    pod(subject, "server", "n1", [program, "serve", String(LOAD_PORT)]),
    pod(subject, "client", "n2", ["sleep", "infinity"]),
  ]).join("---");
}
