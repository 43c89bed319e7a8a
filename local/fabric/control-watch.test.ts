import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer } from "node:http";
import { afterEach, describe, it } from "node:test";
import { type ControlState, ControlWatch } from "./control-watch.ts";

describe("ControlWatch", () => {
  const ending = new AbortController();
  const server = createServer();
  afterEach(() => {
    ending.abort();
    server.close();
  });

  it("answers a question with what control finds when it has looked anew", async () => {
    const asked: string[] = [];
    server.on("request", ({ url = "" }, response) => {
      asked.push(url);
      const isFresh = url.includes("fresh");
      const problems = isFresh ? [{ file: "a", line: 3, object: "b", reason: "c" }] : [];
      const nodes = [
        { node: "n1", current: true },
        { node: "n2", current: false },
      ];
      response.end(JSON.stringify(url === "/nodes" ? nodes : problems));
    });
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    const address = server.address();
    assert.ok(typeof address === "object" && address !== null);
    const watch = new ControlWatch(`http://127.0.0.1:${address.port}`);
    const told: [ControlState, number][] = [];
    const answered = new Promise<void>((resolve) => {
      const tell = (state: ControlState, answers: number) => {
        told.push([state, answers]);
        if (told.length === 1) watch.ask(7);
        if (answers === 7) resolve();
      };
      void watch.run(tell, ending.signal);
    });
    await answered;
    assert.equal(told.length, 2, "at once, not at the next of the regular looks");
    assert.deepEqual(told[0]?.[0].problems, []);
    const [state] = told[1] ?? assert.fail();
    assert.deepEqual(state.current, ["n1"]);
    const problem = { file: "a", line: 3, object: "b", field: "", reason: "c", lastGood: false };
    assert.deepEqual(state.problems, [problem]);
    assert.ok(asked.includes("/problems?fresh=true"));
  });
});
