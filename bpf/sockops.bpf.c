// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * Vouches for pods that connect to pods of this node, and moves a note from the connecting socket
 * to the one that is accepted on the other side.
 *
 *   hook       sockops, at the root of the agent's part of the cgroup tree
 *   reads      pods, local_ips
 *              notes     of connecting sockets, before their SYN leaves
 *   writes     attest    for the life of a direct connection
 *              handoff   for the time of one handshake
 *              notes     of accepted sockets, before accept(2) can return them
 *              counters
 *   on error   the source is not vouched for, and the agent judges; or the accepted socket has no
 *              note: the agent refuses the connection, or the application sees the agent's address
 *              as its peer. All are counted.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include "maps.h"
#include "mesh_verdict.h"
#include "sock_ends.h"

/* For on_close(). Other programs' flags are kept. */
static __always_inline void hear_of_close(struct bpf_sock_ops *ctx)
{
	bpf_sock_ops_cb_flags_set(ctx, ctx->bpf_sock_ops_cb_flags | BPF_SOCK_OPS_STATE_CB_FLAG);
}

static __always_inline void attest_source(struct bpf_sock_ops *ctx, struct handoff_key *key)
{
	const struct pod_cfg *pod = bpf_map_lookup_elem(&pods, &key->netns);
	struct attest source = {};

	if (!pod || !(pod->flags & POD_DIRECT))
		return;
	ends(ctx, &key->flow.src, &key->flow.dst);
	if (pod_owns(pod, &key->flow.dst) || !bpf_map_lookup_elem(&local_ips, key->flow.dst.ip))
		return; /* to itself, or to where nobody would read it */
	/*
	 * Whoever has CAP_NET_ADMIN in a network namespace can give it another pod's address and
	 * connect from there, so the address proves nothing. The socket's netns cannot be chosen.
	 */
	if (!pod_owns(pod, &key->flow.src)) {
		count(MESH_FORGED);
		return;
	}
	source.netns = key->netns;
	source.t_ns = bpf_ktime_get_ns();
	source.src_id = pod->id;
	if (bpf_map_update_elem(&attest, &key->flow, &source, BPF_ANY)) {
		count(MESH_ATTEST_FULL);
		return;
	}
	count(MESH_ATTESTED);
	hear_of_close(ctx);
}

/* Before the SYN leaves. */
static __always_inline void on_connect(struct bpf_sock_ops *ctx)
{
	struct handoff_key key = { .netns = bpf_get_netns_cookie(ctx) };
	struct bpf_sock *sk = ctx->sk;
	struct note *note, copy;

	if (!sk)
		return;
	note = bpf_sk_storage_get(&notes, sk, NULL, 0);
	if (!note || note->kind == NOTE_DIRECT) {
		attest_source(ctx, &key);
		return;
	}
	/* An agent's socket with no client to show has port 0. */
	if (!note->a.port)
		return;
	ends(ctx, &key.flow.src, &key.flow.dst);
	copy = *note;
	copy.kind = note->kind == NOTE_ORIG_DST ? NOTE_CAPTURED : NOTE_REAL_PEER;
	if (bpf_map_update_elem(&handoff, &key, &copy, BPF_ANY)) {
		count(MESH_HANDOFF_FULL);
		return;
	}
	count(MESH_HANDED_OVER);
	hear_of_close(ctx);
}

/* The handshake is complete. The child is locked, and accept(2) has to wait for that lock. */
static __always_inline void on_accept(struct bpf_sock_ops *ctx)
{
	struct handoff_key key = { .netns = bpf_get_netns_cookie(ctx) };
	struct bpf_sock *sk = ctx->sk;
	struct note *note, copy;

	ends(ctx, &key.flow.dst, &key.flow.src); /* the key is the connecting side's view */
	note = bpf_map_lookup_elem(&handoff, &key);
	if (!note)
		return;
	copy = *note;
	bpf_map_delete_elem(&handoff, &key);
	if (sk && bpf_sk_storage_get(&notes, sk, &copy, BPF_SK_STORAGE_GET_F_CREATE))
		count(MESH_TAKEN_OVER);
	else
		count(MESH_TAKEOVER_FAILED);
}

/* A connection that nobody accepted, or that its owner gave up, leaves nothing behind. */
static __always_inline void on_close(struct bpf_sock_ops *ctx)
{
	struct handoff_key key = { .netns = bpf_get_netns_cookie(ctx) };
	const struct attest *source;

	ends(ctx, &key.flow.src, &key.flow.dst);
	bpf_map_delete_elem(&handoff, &key);
	source = bpf_map_lookup_elem(&attest, &key.flow);
	if (source && source->netns == key.netns)
		bpf_map_delete_elem(&attest, &key.flow);
}

SEC("sockops")
int mesh_sockops(struct bpf_sock_ops *ctx)
{
	switch (ctx->op) {
	case BPF_SOCK_OPS_TCP_CONNECT_CB:
		on_connect(ctx);
		break;
	case BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB:
		on_accept(ctx);
		break;
	case BPF_SOCK_OPS_STATE_CB:
		if (ctx->args[1] == BPF_TCP_CLOSE)
			on_close(ctx);
		break;
	}
	return 1;
}

char _license[] SEC("license") = "Dual BSD/GPL";
