import assert from "node:assert/strict";
import { mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { Limiter } from "../limit.ts";
import { Ledger, NOTHING, readLedger } from "./ledger.ts";

describe("Ledger", () => {
  let dir: string;
  before(async () => {
    dir = await mkdtemp(join(tmpdir(), "aquifer-ledger-"));
  });
  after(() => rm(dir, { recursive: true, force: true }));

  it("is on disk before add() resolves, whoever adds at the same time", async () => {
    const path = join(dir, "runtime.json");
    const ledger = new Ledger(path);
    await Promise.all(
      Array.from({ length: 50 }, async (_, index) => {
        await ledger.add({ netns: [`ns-${index}`] });
        assert.ok((await readLedger(path)).netns.includes(`ns-${index}`));
      }),
    );
    await ledger.remove({ netns: ["ns-7"] });
    const { netns } = await readLedger(path);
    assert.equal(netns.length, 49);
    assert.deepEqual(await readdir(dir), ["runtime.json"], "no draft is left");
  });

  it("is empty where there is none, and refuses what is not one", async () => {
    assert.deepEqual(await readLedger(join(dir, "missing")), NOTHING);
    const path = join(dir, "other.json");
    for (const text of ["{}", '{"netns": [1], "cgroups": [], "pinDirs": []}', "half"]) {
      await writeFile(path, text);
      await assert.rejects(readLedger(path), SyntaxError);
    }
  });
});

describe("Limiter", () => {
  it("lets no more than its number run, and everybody in the end", async () => {
    const limiter = new Limiter(2);
    let [now, most] = [0, 0];
    await Promise.all(
      Array.from({ length: 7 }, () => {
        return limiter.run(async () => {
          most = Math.max(most, ++now);
          await new Promise(setImmediate);
          now--;
        });
      }),
    );
    assert.deepEqual([most, now], [2, 0]);
  });
});
