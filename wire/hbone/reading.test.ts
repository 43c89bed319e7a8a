import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { ReadBuffers, SocketReader } from "./reading.ts";

type Written = ((error?: Error | null) => void) | undefined;

/** A reader whose reads a test makes up, as node:net does it. */
function fakeSocket(buffers: ReadBuffers) {
  const reader = new SocketReader(buffers);
  const chunks: { readonly chunk: Buffer; readonly written: Written }[] = [];
  reader.onChunk = (chunk, written) => chunks.push({ chunk, written });
  const { buffer, callback } = reader.onread;
  assert.ok(typeof buffer === "function");
  let target = buffer();
  const read = (length: number, byte: number) => {
    target.fill(byte, 0, length);
    callback(length, target);
    target = buffer();
  };
  return { chunks, read, target: () => target };
}

describe("SocketReader", () => {
  it("leaves nothing of a short read in the shared buffer", () => {
    const buffers = new ReadBuffers();
    const first = fakeSocket(buffers);
    const second = fakeSocket(buffers);
    first.read(100, 1);
    second.read(100, 2);
    assert.deepEqual(first.chunks[0]?.chunk, Buffer.alloc(100, 1));
    assert.deepEqual(second.chunks[0]?.chunk, Buffer.alloc(100, 2));
    assert.equal(first.target(), buffers.shared);
  });

  it("takes buffers of its own after a full read, and gives them back later", () => {
    const buffers = new ReadBuffers();
    const full = buffers.shared.length;
    const socket = fakeSocket(buffers);
    socket.read(full, 1);
    const own = socket.target();
    assert.notEqual(own, buffers.shared);
    socket.read(full, 2);
    assert.notEqual(socket.target(), own);
    socket.read(10, 3);
    assert.equal(socket.target(), buffers.shared);
    assert.deepEqual(
      socket.chunks.map(({ chunk }) => chunk.length),
      [full, full, 10],
    );
    assert.deepEqual(
      socket.chunks.map(({ chunk }) => chunk[0]),
      [1, 2, 3],
    );

    socket.chunks[1]?.written?.();
    assert.equal(buffers.take(), own);
  });

  it("does not use the memory of a failed write again", () => {
    const buffers = new ReadBuffers();
    const socket = fakeSocket(buffers);
    socket.read(buffers.shared.length, 1);
    const own = socket.target();
    socket.read(buffers.shared.length, 2);
    socket.chunks[1]?.written?.(new Error("stream is gone"));
    assert.notEqual(buffers.take(), own);
  });
});
