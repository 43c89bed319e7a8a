import assert from "node:assert/strict";
import { once } from "node:events";
import net from "node:net";
import { describe, it } from "node:test";
import { parseIp } from "#core/ip.ts";
import {
  BpfObject,
  bindTransparent,
  closeDescriptor,
  fdOf,
  openNetns,
  originalDestination,
  setMark,
} from "#native/kernel/index.ts";
import { OBJECT_DIR } from "./rig.ts";

/** A TCP socket of this process's own namespace, for as long as `work` runs. */
function withSocket(family: "ipv4" | "ipv6", work: (fd: number) => void): void {
  const netns = openNetns(process.pid);
  const fd = netns.openSocket({ family });
  try {
    work(fd);
  } finally {
    closeDescriptor(fd);
    netns.close();
  }
}

describe("native calls for redirected sockets", () => {
  it("know no original destination of a connection that nobody redirected", async () => {
    for (const host of ["127.0.0.1", "::1"]) {
      const server = net.createServer().listen(0, host);
      await once(server, "listening");
      const { port } = server.address() as net.AddressInfo;
      const client = net.connect(port, host);
      const [accepted] = (await once(server, "connection")) as [net.Socket];
      const found = originalDestination(fdOf(accepted) ?? -1);
      // With conntrack in this namespace, it is the connection's own.
      if (found !== undefined) assert.deepEqual(found, { ip: host, port });
      client.destroy();
      accepted.destroy();
      server.close();
    }
  });

  it("bind to an address of another machine, of the socket's family", () => {
    withSocket("ipv4", (fd) => {
      setMark(fd, 0x539);
      bindTransparent(fd, parseIp("198.51.100.1"));
    });
    withSocket("ipv6", (fd) => bindTransparent(fd, parseIp("2001:db8::1")));
    withSocket("ipv4", (fd) => {
      assert.throws(() => bindTransparent(fd, parseIp("2001:db8::1")), {
        code: "KERNEL_CALL_FAILED",
      });
    });
  });

  it("check what they are given", () => {
    assert.throws(() => originalDestination(-1), RangeError);
    assert.throws(() => setMark(1, -1), RangeError);
    assert.throws(() => setMark(2 ** 20, 1), { code: "KERNEL_CALL_FAILED" });
  });

  it("tell what an object costs, once it is loaded", () => {
    const object = new BpfObject(`${OBJECT_DIR}/peer.bpf.o`);
    try {
      assert.throws(() => object.costs(), { code: "KERNEL_CALL_FAILED" });
      object.load();
      const { programs, maps } = object.costs();
      assert.deepEqual(programs.map(({ name }) => name).toSorted(), ["peer_name4", "peer_name6"]);
      assert.ok(maps.some(({ name }) => name === "pods"));
    } finally {
      object.close();
    }
  });
});
