// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * Marks health probes of enrolled pods by their source address, so that the pods know them.
 *
 *   hook       cgroup/connect4 and connect6, on the cgroup of the node's prober alone: other
 *              processes of the node get no such address
 *   reads      probe_ports     written by agent/kernel/probe-source.ts
 *   writes     probe_counters
 *   on error   lets the connection go as it is: it reaches the agent of the pod, which judges it
 *              like anybody's. The address opens nothing by itself, see inbound.bpf.c.
 */
#include <linux/bpf.h>
#include <linux/in.h>
#include <linux/in6.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include "decide.h"
#include "probe.h"

#define MESH_AF_INET 2 /* linux/socket.h */
#define MESH_AF_INET6 10

/* ---- set by user space before load ---- */

/* Where the source addresses are. A prober that works in a pod's namespace is left alone. */
const volatile __u64 node_netns = 0;

/* What a cgroup/connect program returns. Nothing is ever refused here. */
enum verdict { PROCEED = 1 };

static __always_inline bool is_marked(struct bpf_sock_addr *ctx, const struct addr *dst)
{
	return ctx->type == MESH_SOCK_STREAM && bpf_get_netns_cookie(ctx) == node_netns &&
	       is_declared(dst);
}

SEC("cgroup/connect4")
int probe_connect4(struct bpf_sock_addr *ctx)
{
	struct addr dst = addr_of_v4(ctx->user_ip4, bpf_ntohs(ctx->user_port));
	struct sockaddr_in source = { .sin_family = MESH_AF_INET, .sin_addr.s_addr = PROBE_IP4 };

	if (is_marked(ctx, &dst)) {
		/* Fails where the socket is bound already, or the address is missing. */
		long error = bpf_bind(ctx, (struct sockaddr *)&source, sizeof(source));

		count_probe(error ? PROBE_NOT_BOUND : PROBE_MARKED);
	}
	return PROCEED;
}

SEC("cgroup/connect6")
int probe_connect6(struct bpf_sock_addr *ctx)
{
	struct addr dst = {
		.ip = { ctx->user_ip6[0], ctx->user_ip6[1], ctx->user_ip6[2], ctx->user_ip6[3] },
		.port = bpf_ntohs(ctx->user_port),
	};
	const __be32 ip6[4] = PROBE_IP6;
	struct sockaddr_in6 source = { .sin6_family = MESH_AF_INET6 };
	/* A socket of IPv6 that speaks IPv4 has a mapped source. */
	bool mapped = is_v4(&dst);

	if (is_marked(ctx, &dst)) {
		long error;

		source.sin6_addr.s6_addr32[0] = mapped ? 0 : ip6[0];
		source.sin6_addr.s6_addr32[1] = mapped ? 0 : ip6[1];
		source.sin6_addr.s6_addr32[2] = mapped ? MAPPED_WORD : ip6[2];
		source.sin6_addr.s6_addr32[3] = mapped ? PROBE_IP4 : ip6[3];
		error = bpf_bind(ctx, (struct sockaddr *)&source, sizeof(source));
		count_probe(error ? PROBE_NOT_BOUND : PROBE_MARKED);
	}
	return PROCEED;
}

char _license[] SEC("license") = "Dual BSD/GPL";
