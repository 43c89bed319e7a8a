// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * Tells an application who its peer really is: not the agent that relays between them.
 *
 *   hook       cgroup/getpeername4 and getpeername6, at the root of the agent's part of the cgroup
 *              tree. They run for getpeername(2) and for the address that accept(2) returns.
 *   reads      notes
 *   writes     counters
 *   on error   the kernel's own answer stands. These programs never refuse.
 */
#include <linux/bpf.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include "addr.h"
#include "maps.h"
#include "mesh_verdict.h"

enum verdict { PROCEED = 1 };

static __always_inline const struct note *note_for_peername(struct bpf_sock_addr *ctx)
{
	const struct note *note = bpf_sk_storage_get(&notes, ctx->sk, NULL, 0);

	if (!note)
		return NULL;
	/*
	 * The agent's ends hold NOTE_CAPTURED and NOTE_AGENT. They must not be answered: the hook
	 * also covers the agent, whose accept() would name the original destination as the client.
	 */
	if (note->kind != NOTE_ORIG_DST && note->kind != NOTE_REAL_PEER &&
	    note->kind != NOTE_DIRECT)
		return NULL;
	return note;
}

SEC("cgroup/getpeername4")
int peer_name4(struct bpf_sock_addr *ctx)
{
	const struct note *note = note_for_peername(ctx);

	if (!note || !is_v4(&note->a))
		return PROCEED;
	ctx->user_ip4 = note->a.ip[3];
	ctx->user_port = bpf_htons(note->a.port);
	count(MESH_PEER_ANSWERED);
	return PROCEED;
}

SEC("cgroup/getpeername6")
int peer_name6(struct bpf_sock_addr *ctx)
{
	const struct note *note = note_for_peername(ctx);

	if (!note)
		return PROCEED;
	/* IPv4 stands in notes as ::ffff:a.b.c.d, which is what an IPv6 socket expects. */
	ctx->user_ip6[0] = note->a.ip[0];
	ctx->user_ip6[1] = note->a.ip[1];
	ctx->user_ip6[2] = note->a.ip[2];
	ctx->user_ip6[3] = note->a.ip[3];
	ctx->user_port = bpf_htons(note->a.port);
	count(MESH_PEER_ANSWERED);
	return PROCEED;
}

char _license[] SEC("license") = "Dual BSD/GPL";
