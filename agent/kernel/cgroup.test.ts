import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { checkCgroupRoot, mountOf, ownCgroup } from "./cgroup.ts";

const MOUNTINFO = `24 1 8:1 / / rw - ext4 /dev/root rw
30 24 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw
31 30 0:27 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu
32 30 0:28 /pods /sys/fs/cgroup/unified rw,relatime shared:5 - cgroup2 cgroup2 rw
`;

describe("mountOf()", () => {
  it("finds the cgroup2 mount that a directory is in, and no other", () => {
    const mount = { root: "/pods", point: "/sys/fs/cgroup/unified" };
    assert.deepEqual(mountOf("/sys/fs/cgroup/unified/n1", MOUNTINFO), mount);
    assert.deepEqual(mountOf("/sys/fs/cgroup/unified", MOUNTINFO), mount);
    assert.equal(mountOf("/sys/fs/cgroup/unified2", MOUNTINFO), undefined);
    assert.equal(mountOf("/sys/fs/cgroup/cpu", MOUNTINFO), undefined);
  });
});

describe("ownCgroup()", () => {
  it("is the line without controllers", () => {
    assert.equal(ownCgroup("4:memory:/a\n0::/b/c\n"), "/b/c");
    assert.equal(ownCgroup("4:memory:/a\n"), undefined);
  });
});

describe("checkCgroupRoot()", () => {
  it("refuses what is not there, and what is no cgroup", () => {
    assert.throws(() => checkCgroupRoot("/sys/fs/cgroup/nowhere"), {
      code: "SETTINGS_INVALID",
      message: 'Cannot attach to cgroup "/sys/fs/cgroup/nowhere": it is not there',
    });
    assert.throws(() => checkCgroupRoot("/tmp"), {
      message: 'Cannot attach to cgroup "/tmp": it is not in a cgroup2 file system',
    });
  });
});
