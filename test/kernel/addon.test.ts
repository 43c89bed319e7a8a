import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  rmdirSync,
  rmSync,
  statSync,
  unlinkSync,
  writeFileSync,
} from "node:fs";
import net from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { reasonOf } from "#core/errors.ts";
import { parseIp } from "#core/ip.ts";
import {
  BpfLink,
  BpfMap,
  BpfObject,
  cgroupExists,
  closeDescriptor,
  ensureBpffs,
  errnoOf,
  fdOf,
  openNetns,
  setLingerReset,
} from "#native/kernel/index.ts";
import { cgroup2Root, until } from "../support/kernel.ts";
import { makeNetwork, type TestNetwork } from "../support/netns.ts";
import { OBJECT_DIR } from "./rig.ts";

const ENOENT = 2;
const EBADF = 9;
const EINVAL = 22;
const ENOTTY = 25;
const EADDRINUSE = 98;

const failsWith = (errno: number) => (error: unknown) => errnoOf(error) === errno;

describe("BpfMap", () => {
  const pinDir = `/sys/fs/bpf/aqt-addon-${process.pid}`;
  let pods: BpfMap;
  let counters: BpfMap;

  before(() => {
    ensureBpffs("/sys/fs/bpf");
    mkdirSync(pinDir);
    const object = new BpfObject(join(OBJECT_DIR, "connect.bpf.o"));
    for (const map of ["pods", "counters"]) object.setPinPath(map, join(pinDir, map));
    object.load();
    object.close();
    pods = BpfMap.openPinned(join(pinDir, "pods"));
    counters = BpfMap.openPinned(join(pinDir, "counters"));
  });
  after(() => {
    pods?.close();
    counters?.close();
    for (const name of readdirSync(pinDir)) unlinkSync(join(pinDir, name));
    rmdirSync(pinDir);
  });

  it("knows how long keys and values are, for all CPUs together where there is one for each", () => {
    assert.deepEqual([pods.keyBytes, pods.valueBytes], [8, 40]);
    assert.equal(counters.keyBytes, 4);
    assert.equal(counters.valueBytes % 8, 0);
  });

  it("keeps, lists and gives up entries", () => {
    const [one, two] = [new Uint8Array(8).fill(1), new Uint8Array(8).fill(2)];
    const value = new Uint8Array(40).map((_, index) => index);
    assert.equal(pods.lookup(one), undefined);
    pods.update(one, value);
    pods.update(two, value);
    assert.deepEqual(pods.lookup(one), value);
    assert.deepEqual(pods.keys().sort(), [one, two]);
    assert.equal(pods.delete(one), true);
    assert.equal(pods.delete(one), false);
    assert.equal(pods.delete(two), true);
    assert.deepEqual(pods.keys(), []);
  });

  it("lets no buffer of another length reach the kernel", () => {
    const key = new Uint8Array(8);
    for (const wrong of [0, 7, 9]) {
      const name = { name: "RangeError", message: `key must have 8 bytes, not ${wrong}` };
      assert.throws(() => pods.lookup(new Uint8Array(wrong)), name);
      assert.throws(() => pods.delete(new Uint8Array(wrong)), name);
      assert.throws(() => pods.update(new Uint8Array(wrong), new Uint8Array(40)), name);
    }
    assert.throws(() => pods.update(key, new Uint8Array(39)), RangeError);
    assert.throws(() => pods.update(key, new Uint8Array(41)), RangeError);
    // A Float64Array of the right number of bytes is not what was asked for.
    const floats: unknown = new Float64Array(1);
    assert.throws(() => pods.lookup(floats as Uint8Array), TypeError);
  });

  it("says EBADF once it is closed, and closes twice", () => {
    const map = BpfMap.openPinned(join(pinDir, "pods"));
    map.close();
    map.close();
    assert.throws(() => map.lookup(new Uint8Array(8)), failsWith(EBADF));
  });

  it("is not made of nothing, of another kind, or of a name that ends early", () => {
    assert.throws(() => BpfMap.openPinned(join(pinDir, "none")), {
      code: "KERNEL_CALL_FAILED",
      message: `Cannot open map "${pinDir}/none": bpf_obj_get: ENOENT`,
    });
    assert.throws(() => BpfMap.openPinned(`${pinDir}/pods\0x`), RangeError);
    assert.throws(() => BpfLink.openPinned(join(pinDir, "pods")), failsWith(EINVAL));
    assert.throws(() => BpfLink.openPinned(join(pinDir, "none")), failsWith(ENOENT));
  });
});

describe("BpfObject", () => {
  const dir = mkdtempSync(join(tmpdir(), "aquifer-addon-"));
  after(() => rmSync(dir, { recursive: true }));

  it("is not made of a file that is none", () => {
    const path = join(dir, "text.bpf.o");
    writeFileSync(path, "not an object");
    assert.throws(() => new BpfObject(path), { code: "KERNEL_CALL_FAILED" });
    assert.throws(() => new BpfObject(join(dir, "none")), failsWith(ENOENT));
  });

  it("tells what the verifier did not like", () => {
    const source = join(dir, "bad.bpf.c");
    writeFileSync(
      source,
      `#include <linux/bpf.h>
       #include <bpf/bpf_helpers.h>
       SEC("sockops") int bad(struct bpf_sock_ops *ctx) { return *(int *)((char *)ctx + 4096); }`,
    );
    const object = join(dir, "bad.bpf.o");
    const flags = ["-target", "bpf", "-O2", "-g", "-idirafter", `/usr/include/${multiarch()}`];
    execFileSync("clang", [...flags, "-c", source, "-o", object]);
    const bad = new BpfObject(object);
    assert.throws(
      () => bad.load(),
      (error) => /invalid bpf_context access/.test(reasonOf(error)),
    );
    bad.close();
  });

  it("takes constants of exactly their size, by their names, and before load()", () => {
    const object = new BpfObject(join(OBJECT_DIR, "inbound.bpf.o"));
    object.setConstant("out_port", Uint8Array.of(1, 2));
    assert.throws(() => object.setConstant("out_port", new Uint8Array(4)), RangeError);
    assert.throws(() => object.setConstant("no_port", new Uint8Array(2)), failsWith(ENOENT));
    assert.throws(() => object.attachCgroup("in_lookup", "/"), failsWith(EBADF));
    object.load();
    assert.throws(() => object.setConstant("out_port", Uint8Array.of(1, 2)), /EBUSY/);
    assert.throws(() => object.attachCgroup("nobody", "/"), failsWith(ENOENT));
    assert.throws(() => object.openMap("nothing"), failsWith(ENOENT));
    object.close();
    assert.throws(() => object.openMap("listeners"), failsWith(EBADF));
  });
});

describe("Netns", () => {
  let network: TestNetwork;
  before(() => {
    network = makeNetwork("addon");
  });
  after(() => network?.close());

  it("is not made of another file or another kind of namespace", () => {
    assert.throws(() => openNetns("/etc/passwd"), failsWith(ENOTTY));
    assert.throws(() => openNetns("/proc/self/ns/mnt"), failsWith(EINVAL));
    assert.throws(() => openNetns("/run/netns/nowhere"), failsWith(ENOENT));
    assert.throws(() => openNetns(0x7fff_ffff), failsWith(ENOENT));
  });

  it("has a cookie of its own, the same by path and by process", async () => {
    const { a, b } = network;
    assert.notEqual(a.netns.cookie(), b.netns.cookie());
    const child = a.start("sleep", ["30"]);
    const { pid } = child;
    assert.ok(pid);
    const inode = statSync(a.netnsPath).ino;
    await until("it has entered", () => statSync(`/proc/${pid}/ns/net`).ino === inode);
    const byProcess = openNetns(pid);
    assert.equal(byProcess.cookie(), a.netns.cookie());
    byProcess.close();
    child.kill();
  });

  it("listens for one family, and leaves the thread where it was", async () => {
    const own = openNetns(process.pid);
    const before = own.cookie();
    const { netns } = network.a;
    const port = 7_000;
    const v6 = netns.listen({ ip: parseIp("::"), port, backlog: 1 });
    // Would be in use if that one took IPv4 as well.
    const v4 = netns.listen({ ip: parseIp("0.0.0.0"), port, backlog: 1 });
    assert.throws(
      () => netns.listen({ ip: parseIp("10.1.1.2"), port, backlog: 1 }),
      failsWith(EADDRINUSE),
    );
    assert.throws(() => netns.listen({ ip: parseIp("10.9.9.9"), port, backlog: 1 }), {
      message:
        /^Cannot listen on 10.9.9.9 port 7000 in network namespace ".*": bind: EADDRNOTAVAIL$/,
    });
    assert.throws(() => netns.listen({ ip: parseIp("::"), port: 65_536, backlog: 1 }), RangeError);
    closeDescriptor(v4);
    closeDescriptor(v6);
    assert.throws(() => closeDescriptor(v6), failsWith(EBADF));
    assert.equal(own.cookie(), before);
    own.close();
  });

  it("makes sockets of one family only", () => {
    const bind = parseIp("::1");
    assert.throws(() => network.a.netns.openSocket({ family: "ipv4", bind }), TypeError);
  });
});

describe("sockets", () => {
  it("setLingerReset() makes close() a reset", async () => {
    const server = net.createServer((socket) => {
      const fd = fdOf(socket);
      assert.ok(fd !== undefined);
      setLingerReset(fd);
      socket.destroy();
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const address = server.address();
    assert.ok(address && typeof address === "object");
    const client = net.connect(address.port, "127.0.0.1");
    const error = await new Promise<NodeJS.ErrnoException>((resolve) =>
      client.on("error", resolve),
    );
    assert.equal(error.code, "ECONNRESET");
    assert.equal(fdOf(client), undefined);
    server.close();
  });

  it("setLingerReset() refuses what is no descriptor", () => {
    for (const wrong of [-1, 1.5, Number.NaN, 2 ** 31]) {
      assert.throws(() => setLingerReset(wrong), RangeError);
    }
    assert.throws(() => setLingerReset(2 ** 31 - 1), failsWith(EBADF));
  });
});

describe("cgroupExists()", () => {
  it("tells a cgroup that is there from one that never was", () => {
    assert.equal(cgroupExists(cgroup2Root(), 1n), true);
    assert.equal(cgroupExists(cgroup2Root(), 0xffff_ffff_ffffn), false);
    assert.throws(() => cgroupExists(cgroup2Root(), -1n), RangeError);
  });
});

function multiarch(): string {
  return execFileSync("gcc", ["-print-multiarch"], { encoding: "utf8" }).trim();
}
