/** The rig of rig.ts on the rung of nftables: listeners at fixed places, no cgroup, no pins. */
import { mkdtempSync, rmdirSync } from "node:fs";
import net from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { formatSocketAddress, type IpAddress } from "#core/ip.ts";
import { fdOf } from "#native/kernel/index.ts";
import type { Datapath, FixedSockets, PodCapture } from "../../agent/kernel/datapath.ts";
import { openNftDatapath } from "../../agent/kernel/nft/datapath.ts";
import type { TestNetwork, TestPod } from "../support/netns.ts";
import { endOf, uidOf } from "./rig.ts";

const ROLES = ["outbound", "inbound", "hbone"] as const;
const FAMILIES = ["ipv4", "ipv6"] as const;

export class NftRig {
  datapath: Datapath;
  readonly #directory: string;
  readonly #recordDir: string;
  readonly #servers = new Set<net.Server>();

  constructor({ name }: Pick<TestNetwork, "name">) {
    this.#directory = mkdtempSync(join(tmpdir(), `${name}-`));
    this.#recordDir = join(this.#directory, "records");
    this.datapath = this.open();
  }

  open(): Datapath {
    return openNftDatapath({ recordDir: this.#recordDir, bootId: "boot" });
  }

  async enrol(pod: TestPod, addresses: readonly IpAddress[] = [pod.ip4, pod.ip6]) {
    const { netns } = pod;
    const capture = this.datapath.enrol({ uid: uidOf(pod), netns, addresses, id: 1 });
    await this.listen(pod);
    capture.unblock();
    return capture satisfies PodCapture;
  }

  async listen({ netns }: TestPod): Promise<void> {
    for (const role of ROLES) {
      for (const family of FAMILIES) {
        const place = this.fixedSockets.listenAt(role, family);
        const fd = netns.listen({ ...place, backlog: 4096 });
        const server = net.createServer({ allowHalfOpen: true }, (socket) => {
          socket.on("error", () => socket.destroy());
          this.#tell(`${role} ${family}`, socket);
        });
        await new Promise<void>((resolve) => server.listen({ fd }, resolve));
        this.#servers.add(server);
      }
    }
  }

  get fixedSockets(): FixedSockets {
    const { fixedSockets } = this.datapath;
    if (fixedSockets === undefined) throw new Error("this rung has no fixed sockets");
    return fixedSockets;
  }

  /** What is left when the agent has been killed: rules and records. */
  async die(): Promise<void> {
    const closed = [...this.#servers].map((server) => {
      return new Promise((resolve) => server.close(resolve));
    });
    this.#servers.clear();
    this.datapath.close();
    await Promise.all(closed);
  }

  async close(): Promise<void> {
    await this.die();
    this.open().uninstall();
    // Fails where the records are left.
    rmdirSync(this.#directory);
  }

  #tell(slot: string, socket: net.Socket): void {
    const fd = fdOf(socket) ?? -1;
    const original = this.datapath.originalDestination(fd);
    const arrived = this.fixedSockets.arrivedAt(fd);
    const ends = [
      `peer=${endOf(socket.remoteAddress, socket.remotePort)}`,
      `arrived=${arrived === undefined ? "none" : formatSocketAddress(arrived)}`,
      `original=${original === undefined ? "none" : formatSocketAddress(original)}`,
    ];
    socket.resume();
    socket.end(`${slot} ${ends.join(" ")}\n`);
  }
}
