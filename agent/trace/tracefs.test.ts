import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { parseFormats } from "./tracefs.ts";

/** As Linux 6.18 prints it, shortened. */
const PRINTED = `= syscalls/sys_exit_connect
name: sys_exit_connect
ID: 2229
format:
\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;

\tfield:int __syscall_nr;\toffset:8;\tsize:4;\tsigned:1;
\tfield:long ret;\toffset:16;\tsize:8;\tsigned:1;

print fmt: "0x%lx", REC->ret
= tcp/no_such_tracepoint
= tcp/tcp_send_reset
name: tcp_send_reset
ID: 2280
format:
\tfield:const void * skbaddr;\toffset:8;\tsize:8;\tsigned:0;
\tfield:enum sk_rst_reason reason;\toffset:28;\tsize:4;\tsigned:0;
\tfield:__u8 saddr[28];\toffset:32;\tsize:28;\tsigned:0;

print fmt: "state=%s reason=%s", REC->state ? __print_symbolic(REC->state, { TCP_ESTABLISHED, \
"TCP_ESTABLISHED" }, { TCP_SYN_SENT, "TCP_SYN_SENT" }) : "UNKNOWN", __print_symbolic(REC->reason, \
{ 0, "NOT_SPECIFIED" }, { 1, "NO_SOCKET" }, { 25, "MAX" })
`;

describe("parseFormats", () => {
  const formats = parseFormats(PRINTED);

  it("reads the fields of each tracepoint with their sizes", () => {
    assert.deepEqual(formats.get("syscalls:sys_exit_connect")?.fields.get("ret"), 8);
    const fields = formats.get("tcp:tcp_send_reset")?.fields;
    assert.deepEqual(fields && [...fields], [
      ["skbaddr", 8],
      ["reason", 4],
      ["saddr", 28],
    ]);
  });

  it("leaves out tracepoints that the kernel does not have", () => {
    assert.equal(formats.has("tcp:no_such_tracepoint"), false);
  });

  it("reads the names that the kernel prints for the values of a field", () => {
    const names = formats.get("tcp:tcp_send_reset")?.names.get("reason");
    assert.equal(names?.get(1), "NO_SOCKET");
    assert.equal(names?.get(25), "MAX");
  });

  it("has no names where the kernel gives constants in place of values", () => {
    assert.equal(formats.get("tcp:tcp_send_reset")?.names.get("state")?.size ?? 0, 0);
  });
});
