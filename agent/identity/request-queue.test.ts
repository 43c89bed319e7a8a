import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { RequestQueue } from "./request-queue.ts";

describe("RequestQueue", () => {
  it("takes the most urgent first, and among equals the one that waited longest", () => {
    const queue = new RequestQueue<string>(8);
    queue.add("renewal", "background");
    queue.add("pod a", "warmup");
    queue.add("pod b", "warmup");
    queue.add("now", "connection");
    const taken = [queue.take(), queue.take(), queue.take(), queue.take(), queue.take()];
    assert.deepEqual(taken, ["now", "pod a", "pod b", "renewal", undefined]);
  });

  it("makes one that waits more urgent, never less", () => {
    const queue = new RequestQueue<string>(8);
    queue.add("a", "warmup");
    queue.add("b", "warmup");
    queue.add("b", "connection");
    queue.add("b", "background");
    assert.equal(queue.take(), "b");
  });

  it("runs no more than it may at a time, and none twice", () => {
    const queue = new RequestQueue<string>(2);
    for (const key of ["a", "b", "c"]) queue.add(key, "warmup");
    assert.equal(queue.take(), "a");
    queue.add("a", "connection");
    assert.equal(queue.take(), "b");
    assert.equal(queue.take(), undefined);
    queue.done("a");
    assert.equal(queue.take(), "c");
  });
});
