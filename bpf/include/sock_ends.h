/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* The two ends of the socket that a sockops program is called for. */
#ifndef MESH_SOCK_ENDS_H
#define MESH_SOCK_ENDS_H

#include <linux/bpf.h>
#include <bpf/bpf_endian.h>
#include "addr.h"
#include "ctx.h"

#define MESH_AF_INET6 10 /* linux/socket.h */

static __always_inline void ends(struct bpf_sock_ops *ctx, struct addr *local, struct addr *remote)
{
	__u32 family = READ_CTX(ctx->family);
	__u32 local_ip4 = READ_CTX(ctx->local_ip4);
	__u32 remote_ip4 = READ_CTX(ctx->remote_ip4);
	/* In network order, in the upper half on a little-endian machine. */
	__u16 remote_port = bpf_ntohl(READ_CTX(ctx->remote_port));
	__u16 local_port = READ_CTX(ctx->local_port);
	__u32 ip[4];

	*local = addr_of_v4(local_ip4, local_port);
	*remote = addr_of_v4(remote_ip4, remote_port);
	if (family != MESH_AF_INET6)
		return;
	ip[0] = READ_CTX(ctx->remote_ip6[0]);
	ip[1] = READ_CTX(ctx->remote_ip6[1]);
	ip[2] = READ_CTX(ctx->remote_ip6[2]);
	ip[3] = READ_CTX(ctx->remote_ip6[3]);
	/* An IPv6 socket on an IPv4 connection: its accepting side may be of either family. */
	if (ip[0] == 0 && ip[1] == 0 && ip[2] == MAPPED_WORD)
		return;
	remote->ip[0] = ip[0];
	remote->ip[1] = ip[1];
	remote->ip[2] = ip[2];
	remote->ip[3] = ip[3];
	local->ip[0] = READ_CTX(ctx->local_ip6[0]);
	local->ip[1] = READ_CTX(ctx->local_ip6[1]);
	local->ip[2] = READ_CTX(ctx->local_ip6[2]);
	local->ip[3] = READ_CTX(ctx->local_ip6[3]);
}

#endif
