// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * For trace.test.ts. Writes a record of 64 bytes, header included, into a ring buffer that nobody
 * reads for each connect(2) to port 9, and refuses those to port 7.
 *
 *   hook       cgroup/connect4
 *   on error   a full ring loses the record, which the test never comes near to
 */
#include <linux/bpf.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} trace_ring SEC(".maps");

SEC("cgroup/connect4")
int test_connect4(struct bpf_sock_addr *ctx)
{
	__u64 record[7] = {};

	if (ctx->user_port == bpf_htons(9))
		bpf_ringbuf_output(&trace_ring, record, sizeof(record), 0);
	return ctx->user_port != bpf_htons(7);
}

char _license[] SEC("license") = "Dual BSD/GPL";
