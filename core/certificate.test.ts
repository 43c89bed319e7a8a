import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { isValidAt, renewalDelayMs } from "./certificate.ts";

const validity = { notBeforeMs: 1_000, notAfterMs: 11_000 };

describe("renewalDelayMs()", () => {
  it("lies at half of the lifetime, or up to a tenth of it earlier", () => {
    assert.equal(renewalDelayMs(validity, 1_000, 0), 5_000);
    assert.equal(renewalDelayMs(validity, 1_000, 0.5), 4_500);
  });

  it("is now where the moment has passed", () => {
    assert.equal(renewalDelayMs(validity, 9_000, 0), 0);
  });

  it("refuses a certificate that is valid for no time", () => {
    const never = { notBeforeMs: 5, notAfterMs: 5 };
    assert.throws(() => renewalDelayMs(never, 0, 0), RangeError);
  });
});

describe("isValidAt()", () => {
  it("counts both ends in", () => {
    const moments = [999, 1_000, 11_000, 11_001];
    assert.deepEqual(
      moments.map((moment) => isValidAt(validity, moment)),
      [false, true, true, false],
    );
  });
});
