import assert from "node:assert/strict";
import { mkdir, mkdtemp, rename, rm, symlink, writeFile } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { afterEach, beforeEach, describe, it } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { formatProblem, type Problem } from "../problem.ts";
import { formatId, keyOfId, type RawObject, type SourceChange } from "../source.ts";
import { DirectorySource, FILE_BYTES_MAX } from "./directory.ts";

/** A change has to be seen well before the look that comes without any event. */
const WAIT_MS = 4_500;

/** What a source has told so far. */
class Listener {
  readonly objects = new Map<string, RawObject>();
  problems: readonly Problem[] = [];
  readonly changes: SourceChange[] = [];

  readonly onChange = (change: SourceChange): void => {
    this.changes.push(change);
    for (const id of change.deleted) this.objects.delete(keyOfId(id));
    for (const object of change.upserted) this.objects.set(keyOfId(object.id), object);
    this.problems = change.problems;
  };

  get names(): string {
    return [...this.objects.values()]
      .map(({ id }) => formatId(id).replace("Namespace ", ""))
      .sort()
      .join(" ");
  }

  /** Labels of the namespace of that name. */
  versionOf(name: string): unknown {
    const object = [...this.objects.values()].find(({ id }) => id.name === name);
    return /"v":"([^"]*)"/.exec(JSON.stringify(object?.value))?.[1];
  }

  async until(what: () => boolean): Promise<void> {
    const deadlineMs = performance.now() + WAIT_MS;
    while (!what()) {
      const seen = `${this.names} | ${this.problems.map(formatProblem).join("; ")}`;
      assert.ok(performance.now() < deadlineMs, `waited in vain, seen: ${seen}`);
      await delay(5);
    }
  }
}

function namespaces(...names: string[]): string {
  return names
    .map((name) => {
      const [plain, version] = name.split("@");
      const labels = version === undefined ? "" : `, labels: {v: "${version}"}`;
      return `apiVersion: v1\nkind: Namespace\nmetadata: {name: ${plain}${labels}}\n`;
    })
    .join("---\n");
}

describe("DirectorySource", () => {
  let root: string;
  let source: DirectorySource;
  let listener: Listener;

  const at = (...parts: string[]) => path.join(root, ...parts);
  const write = (name: string, text: string) => writeFile(at(name), text);
  const open = async (...roots: string[]) => {
    source = new DirectorySource(roots.length > 0 ? roots : [root]);
    await source.start(listener.onChange, AbortSignal.timeout(WAIT_MS));
  };
  const told = () => listener.problems.map((problem) => formatProblem(problem).replace(root, ""));

  beforeEach(async () => {
    root = await mkdtemp(path.join(os.tmpdir(), `aquifer-directory-${process.pid}-`));
    listener = new Listener();
  });

  afterEach(async () => {
    await source.close();
    await rm(root, { recursive: true, force: true });
  });

  it("tells of all files in all folders, and of nothing else", async () => {
    await mkdir(at("deep/er"), { recursive: true });
    await write("a.yaml", namespaces("a", "b"));
    await write("deep/er/c.yml", namespaces("c"));
    await write("d.json", '{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"d"}}');
    for (const name of [".e.yaml", "f.yaml~", "#g.yaml#", "h.yaml.swp", "README.md"]) {
      await write(name, "a: [");
    }
    await open();
    assert.equal(listener.names, "a b c d");
    assert.deepEqual(listener.problems, []);
  });

  it("sees files come, change and go", async () => {
    await open();
    await write("a.yaml", namespaces("a"));
    await listener.until(() => listener.names === "a");
    await write("a.yaml", namespaces("a@2", "b"));
    await listener.until(() => listener.names === "a b" && listener.versionOf("a") === "2");
    await rm(at("a.yaml"));
    await listener.until(() => listener.names === "");
  });

  it("sees a file that is renamed into place, as editors save", async () => {
    await write("a.yaml", namespaces("a@1"));
    await open();
    await write(".a.yaml.tmp", namespaces("a@2"));
    await rename(at(".a.yaml.tmp"), at("a.yaml"));
    await listener.until(() => listener.versionOf("a") === "2");
    assert.ok(listener.changes.every(({ deleted }) => deleted.length === 0));
  });

  it("sees folders that come with files in them, and that go", async () => {
    await open();
    await mkdir(at("x/y/z"), { recursive: true });
    await write("x/y/z/a.yaml", namespaces("a"));
    await listener.until(() => listener.names === "a");
    await write("x/y/z/b.yaml", namespaces("b"));
    await listener.until(() => listener.names === "a b");
    await rm(at("x"), { recursive: true });
    await listener.until(() => listener.names === "");
    await mkdir(at("x"));
    await write("x/c.yaml", namespaces("c"));
    await listener.until(() => listener.names === "c");
  });

  it("does not take an object that moves to another file for one that went", async () => {
    await write("a.yaml", namespaces("a"));
    await open();
    await rename(at("a.yaml"), at("b.yaml"));
    await listener.until(() =>
      [...listener.objects.values()].some(({ origin }) => origin.file === at("b.yaml")),
    );
    assert.equal(listener.names, "a");
    assert.ok(listener.changes.every(({ deleted }) => deleted.length === 0));
  });

  it("follows links to folders, also when they come to lead elsewhere, and not in circles", async () => {
    await mkdir(at("watched"));
    for (const version of ["1", "2"]) {
      await mkdir(at(`v${version}`));
      await write(`v${version}/a.yaml`, namespaces(`a@${version}`));
    }
    await symlink(at("v1"), at("watched/current"));
    await symlink(at("watched"), at("watched/circle"));
    await open(at("watched"));
    assert.equal(listener.versionOf("a"), "1");
    await symlink(at("v2"), at("watched/.next"));
    await rename(at("watched/.next"), at("watched/current"));
    await listener.until(() => listener.versionOf("a") === "2");
    await write("v2/a.yaml", namespaces("a@3"));
    await listener.until(() => listener.versionOf("a") === "3");
  });

  it("follows links to files, in whatever folder these are", async () => {
    for (const folder of ["watched", "elsewhere"]) await mkdir(at(folder));
    await write("elsewhere/target", namespaces("a@1"));
    await symlink(at("elsewhere/target"), at("watched/a.yaml"));
    await open(at("watched"));
    await write("elsewhere/target", namespaces("a@2"));
    await listener.until(() => listener.versionOf("a") === "2");
  });

  // A file's times move in steps of some milliseconds, its size stays the same here.
  it("sees the last of many quick changes", async () => {
    await open();
    for (let round = 0; round < 20; round++) {
      for (const version of ["1", "2", "3"]) {
        await write("a.yaml", namespaces(`a@${version}`));
        await new Promise(setImmediate);
      }
      await listener.until(() => listener.names === "a" && listener.versionOf("a") === "3");
    }
  });

  it("waits for a folder that is not there yet, and starts with what is in it", async () => {
    source = new DirectorySource([at("later/on")]);
    const started = source.start(listener.onChange, AbortSignal.timeout(WAIT_MS));
    await listener.until(() => listener.problems.length === 1);
    assert.deepEqual(told(), [
      "/later/on:1: cannot be read: it does not exist; nothing of it is in force",
    ]);
    await mkdir(at("later/on"), { recursive: true });
    await write("later/on/a.yaml", namespaces("a"));
    await started;
    await listener.until(() => listener.names === "a" && listener.problems.length === 0);
  });

  it("stops waiting where it is told to", async () => {
    source = new DirectorySource([at("never")]);
    const stop = new AbortController();
    const started = source.start(listener.onChange, stop.signal);
    stop.abort(new Error("enough"));
    await assert.rejects(started, /enough/);
  });

  it("comes to an end where links lead everywhere", async () => {
    const folders = Array.from({ length: 9 }, (_, index) => `f${index}`);
    for (const folder of folders) {
      await mkdir(at(folder));
      await write(`${folder}/a.yaml`, namespaces(folder));
      for (const other of folders) await symlink(at(other), at(folder, `to-${other}`));
    }
    await open();
    assert.equal(listener.names, folders.join(" "));
    assert.deepEqual(listener.problems, []);
    const files = [...listener.objects.values()].map(({ origin }) => origin.file);
    assert.deepEqual(
      files,
      folders.map((folder) => at(folder, "a.yaml")),
    );
  });

  it("keeps everything while its folder is gone", async () => {
    await mkdir(at("in"));
    await write("in/a.yaml", namespaces("a"));
    await open(at("in"));
    await rename(at("in"), at("out"));
    await listener.until(() => listener.problems.length > 0);
    assert.deepEqual(told(), [
      "/in:1: cannot be read: it does not exist; the last good version of its objects stays",
    ]);
    assert.equal(listener.names, "a");
    await rename(at("out"), at("in"));
    await listener.until(() => listener.problems.length === 0);
    await rm(at("in/a.yaml"));
    await listener.until(() => listener.names === "");
  });

  it("keeps the last good version of a file that cannot be parsed, and says so", async () => {
    await write("a.yaml", namespaces("a@1", "b"));
    await write("other.yaml", namespaces("c@1"));
    await open();
    await write("a.yaml", `${namespaces("a@2")}---\na: [1\nb: 2\n`);
    await write("other.yaml", namespaces("c@2"));
    await listener.until(() => listener.problems.length > 0 && listener.versionOf("c") === "2");
    assert.equal(listener.names, "a b c");
    assert.equal(listener.versionOf("a"), "1");
    assert.deepEqual(told(), [
      "/a.yaml:6: not valid YAML: Flow sequence in block collection must be sufficiently " +
        "indented and end with a ]; the last good version of the file's 2 objects stays",
    ]);
    assert.equal(listener.problems[0]?.effect, "lastGood");
    await write("a.yaml", namespaces("a@3"));
    await listener.until(() => listener.problems.length === 0);
    assert.equal(listener.names, "a c");
    assert.equal(listener.versionOf("a"), "3");
  });

  it("serves what can be read of a file that was never good", async () => {
    await write("a.yaml", `${namespaces("a")}---\napiVersion: v1\n`);
    await open();
    assert.equal(listener.names, "a");
    assert.deepEqual(told(), [
      '/a.yaml:5: kind: is missing, expected a string such as "Service"; nothing of this is in force',
    ]);
  });

  it("goes on after a restart with what was good, and forgets what went meanwhile", async () => {
    await write("a.yaml", namespaces("a@1", "b"));
    await write("gone.yaml", namespaces("c"));
    await open();
    await source.close();
    const remembered = [...listener.objects.values()];
    await write("a.yaml", "a: [");
    await rm(at("gone.yaml"));
    listener = new Listener();
    source = new DirectorySource([root], remembered);
    await source.start(listener.onChange, AbortSignal.timeout(WAIT_MS));
    assert.equal(listener.names, "a b");
    assert.equal(listener.problems[0]?.effect, "lastGood");
    await write("a.yaml", namespaces("b"));
    await listener.until(() => listener.names === "b" && listener.problems.length === 0);
  });

  it("gives an object in two files to the first, and to the second when the first goes", async () => {
    await write("a.yaml", namespaces("x@a"));
    await write("b.yaml", namespaces("y", "x@b"));
    await open();
    assert.equal(listener.versionOf("x"), "a");
    assert.deepEqual(told(), [
      `/b.yaml:5: Namespace x: the same object stands in ${at("a.yaml")}:1; that one is in force, ` +
        "this one is not",
    ]);
    await rm(at("a.yaml"));
    await listener.until(() => listener.versionOf("x") === "b");
    assert.deepEqual(listener.problems, []);
    // Who has it keeps it, though the other's name comes first.
    await write("a.yaml", namespaces("x@a"));
    await listener.until(() => listener.problems.length === 1);
    assert.equal(listener.versionOf("x"), "b");
    assert.match(told()[0] ?? "", /^\/a.yaml:1: /);
  });

  it("refuses an object that stands twice in one file", async () => {
    await write("a.yaml", namespaces("x@1", "x@2"));
    await open();
    assert.equal(listener.versionOf("x"), "1");
    assert.match(
      told()[0] ?? "",
      /^\/a.yaml:5: Namespace x: the same object stands in .*a.yaml:1;/,
    );
  });

  it("refuses files that are too long or no text", async () => {
    await write("long.yaml", `# ${"x".repeat(FILE_BYTES_MAX)}`);
    await writeFile(at("binary.yaml"), Buffer.from([0x61, 0xff, 0xfe]));
    await open();
    assert.deepEqual(told(), [
      "/binary.yaml:1: cannot be read: it is not UTF-8 text; nothing of this is in force",
      `/long.yaml:1: cannot be read: longer than ${FILE_BYTES_MAX} bytes; nothing of this is in force`,
    ]);
  });

  it("does not take a file that is being saved for one that was emptied", async () => {
    await write("a.yaml", namespaces("a@1"));
    await open();
    await write("a.yaml", "");
    await delay(100); // an editor that empties a file before it writes
    await write("a.yaml", namespaces("a@2"));
    await listener.until(() => listener.versionOf("a") === "2");
    assert.ok(listener.changes.every(({ deleted }) => deleted.length === 0));
    await write("a.yaml", "# empty on purpose\n");
    await listener.until(() => listener.names === "");
  });

  it("keeps a file that can no longer be read", async () => {
    await write("a.yaml", namespaces("a"));
    await open();
    await symlink("a.yaml", at(".loop"));
    await rename(at(".loop"), at("a.yaml"));
    await listener.until(() => listener.problems.length === 1);
    assert.equal(listener.names, "a");
    assert.deepEqual(told(), [
      "/a.yaml:1: cannot be read: its symbolic links lead in a circle; the last good version of " +
        "the file's object stays",
    ]);
  });

  it("tells only of what changed", async () => {
    await write("a.yaml", namespaces("a", "b", "c"));
    await open();
    const before = listener.changes.length;
    await write("a.yaml", namespaces("a", "b@2", "c"));
    await listener.until(() => listener.versionOf("b") === "2");
    const later = listener.changes.slice(before).flatMap(({ upserted }) => upserted);
    assert.deepEqual(
      later.map(({ id }) => id.name),
      ["b"],
    );
  });

  it("keeps up with many files that change at once", async () => {
    await open();
    const names = Array.from({ length: 200 }, (_, index) => `n${index}`);
    await Promise.all(names.map((name) => write(`${name}.yaml`, namespaces(name))));
    await listener.until(() => listener.objects.size === 200);
    await Promise.all(names.slice(1).map((name) => rm(at(`${name}.yaml`))));
    await listener.until(() => listener.names === "n0");
  });
});
