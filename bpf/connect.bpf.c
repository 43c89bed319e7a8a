// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * Sends an enrolled pod's outbound TCP connections to the agent, which listens in the pod.
 *
 *   hook       cgroup/connect4 and connect6, at the root of the agent's part of the cgroup tree
 *   reads      pods     by the netns of the socket, so that moving a process changes nothing
 *   writes     notes    the original destination, for sockops.bpf.c
 *              counters
 *   on error   EPERM. Letting the connection through would carry it past all policy.
 */
#include <linux/bpf.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include "decide.h"
#include "maps.h"
#include "mesh_verdict.h"

/* What a cgroup/connect program returns: 0 makes connect(2) fail with EPERM. */
enum verdict { REFUSE = 0, PROCEED = 1 };

/* The only way out of the programs. */
static __always_inline int conclude(enum mesh_outcome outcome)
{
	count(outcome);
	switch (outcome) {
	case MESH_NOT_ENROLLED:
	case MESH_AGENTS_OWN:
	case MESH_SELF:
	case MESH_NOT_TCP:
	case MESH_CAPTURED:
		return PROCEED;
	default:
		return REFUSE;
	}
}

static __always_inline const struct pod_cfg *pod_of(struct bpf_sock_addr *ctx)
{
	__u64 netns = bpf_get_netns_cookie(ctx);

	return bpf_map_lookup_elem(&pods, &netns);
}

/* Decides, and where the answer is MESH_CAPTURED leaves the note that goes with it. */
static __always_inline enum mesh_outcome outbound(struct bpf_sock_addr *ctx,
						  const struct pod_cfg *pod, const struct addr *dst)
{
	struct note *note = bpf_sk_storage_get(&notes, ctx->sk, NULL, 0);
	enum mesh_outcome outcome;

	/* Only a holder of the map can write this. A mark would not do: CAP_NET_RAW can set one. */
	if (note && note->kind == NOTE_AGENT)
		return MESH_AGENTS_OWN;
	/* A socket may connect again after a failure: the last attempt's note must not survive. */
	bpf_sk_storage_delete(&notes, ctx->sk);

	outcome = decide_outbound(pod, dst, ctx->type);
	if (outcome != MESH_CAPTURED)
		return outcome;
	note = bpf_sk_storage_get(&notes, ctx->sk, NULL, BPF_SK_STORAGE_GET_F_CREATE);
	if (!note)
		return MESH_NO_MEMORY;
	*note = (struct note){ .a = *dst, .kind = NOTE_ORIG_DST, .src_id = pod->id };
	return MESH_CAPTURED;
}

/*
 * The new destination is the pod's own address and not loopback: so getsockname() shows what it
 * would without a mesh, and sockets that are bound to eth0 or to the address still connect.
 */
SEC("cgroup/connect4")
int out_connect4(struct bpf_sock_addr *ctx)
{
	struct addr dst = addr_of_v4(ctx->user_ip4, bpf_ntohs(ctx->user_port));
	const struct pod_cfg *pod = pod_of(ctx);
	enum mesh_outcome outcome;

	if (!pod)
		return conclude(MESH_NOT_ENROLLED);
	outcome = outbound(ctx, pod, &dst);
	if (outcome == MESH_CAPTURED) {
		ctx->user_ip4 = pod->ip4;
		ctx->user_port = bpf_htons(pod->out_port);
	}
	return conclude(outcome);
}

SEC("cgroup/connect6")
int out_connect6(struct bpf_sock_addr *ctx)
{
	struct addr dst = {
		.ip = { ctx->user_ip6[0], ctx->user_ip6[1], ctx->user_ip6[2], ctx->user_ip6[3] },
		.port = bpf_ntohs(ctx->user_port),
	};
	const struct pod_cfg *pod = pod_of(ctx);
	enum mesh_outcome outcome;

	if (!pod)
		return conclude(MESH_NOT_ENROLLED);
	outcome = outbound(ctx, pod, &dst);
	if (outcome == MESH_CAPTURED) {
		/* An IPv6 socket that dials ::ffff:a.b.c.d speaks IPv4: see is_v4() of `dst`. */
		bool mapped = is_v4(&dst);

		ctx->user_ip6[0] = mapped ? 0 : pod->ip6[0];
		ctx->user_ip6[1] = mapped ? 0 : pod->ip6[1];
		ctx->user_ip6[2] = mapped ? MAPPED_WORD : pod->ip6[2];
		ctx->user_ip6[3] = mapped ? pod->ip4 : pod->ip6[3];
		ctx->user_port = bpf_htons(pod->out_port);
	}
	return conclude(outcome);
}

char _license[] SEC("license") = "Dual BSD/GPL";
