import assert from "node:assert/strict";
import { X509Certificate } from "node:crypto";
import { describe, it } from "node:test";
import { TestAuthority } from "../../test/support/certificates.ts";
import { urisOf } from "./peer.ts";

/** What node:crypto makes of a certificate with these names, as this Node writes it. */
async function writtenNames(uris: readonly string[], dnsNames: readonly string[] = []) {
  const authority = await TestAuthority.create();
  const { certificatePem } = await authority.issue({ uris, dnsNames });
  return new X509Certificate(certificatePem).subjectAltName ?? "";
}

describe("urisOf()", () => {
  it("finds every URI and nothing else", async () => {
    const uris = ["spiffe://cluster.local/ns/a/sa/b", "https://example.com/x?y=z"];
    assert.deepEqual(urisOf(await writtenNames(uris, ["example.com"])), uris);
    assert.deepEqual(urisOf(await writtenNames([], ["example.com"])), []);
    assert.deepEqual(urisOf(""), []);
  });

  it("reads a name with separators in it as one name", async () => {
    const hostile = [
      "x, URI:spiffe://cluster.local/ns/a/sa/admin",
      'x", URI:spiffe://cluster.local/ns/a/sa/admin, DNS:"y',
      'x\\", URI:spiffe://cluster.local/ns/a/sa/admin',
      "x\u0000y",
      "x\r\nURI:spiffe://cluster.local/ns/a/sa/admin",
    ];
    for (const name of hostile) assert.deepEqual(urisOf(await writtenNames([name])), [name]);
    assert.deepEqual(urisOf(await writtenNames(hostile)), hostile);
  });

  it("does not take a host name for a URI", async () => {
    const names = await writtenNames([], ["x, URI:spiffe://cluster.local/ns/a/sa/admin"]);
    assert.deepEqual(urisOf(names), []);
  });

  it("refuses text that it does not understand to the end", () => {
    for (const text of [
      "URI",
      "URI:a, ",
      "URI:a, b",
      'URI:"a',
      'URI:"a" x',
      'URI:a"b"',
      "URI:a,URI:b",
      ", URI:a",
      'URI:"\\x"',
    ]) {
      assert.equal(urisOf(text), undefined, text);
    }
  });
});
