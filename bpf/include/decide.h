/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * What is to become of a connection. Pure functions of plain structs: the programs call them, and
 * decide_test.c runs tables over them on the host.
 */
#ifndef MESH_DECIDE_H
#define MESH_DECIDE_H

#include "addr.h"
#include "mesh_layout.h"

#define MESH_SOCK_STREAM 1 /* asm-generic/socket.h; MPTCP shows it too */

/*
 * connect(2) of a pod's socket that the agent has not marked as its own.
 *
 * `verdict` is what policy says of the pod that `dst` leads to: enum policy_verdict.
 */
static __always_inline enum mesh_outcome
decide_outbound(const struct pod_cfg *pod, const struct addr *dst, __u32 type, __u32 verdict)
{
	/* connect() to 0.0.0.0 or :: means the pod itself. */
	if (is_loopback(dst) || is_unspecified(dst) || pod_owns(pod, dst))
		return MESH_SELF;
	if (pod->flags & POD_BLOCKED)
		return MESH_BLOCKED;
	if (type != MESH_SOCK_STREAM)
		return MESH_NOT_TCP;
	/*
	 * There is nowhere to send it. To leave it alone would let it out: a pod without an IPv6
	 * address of its own can still reach its neighbours' link-local ones.
	 */
	if (!pod_speaks(pod, dst))
		return MESH_NO_ADDRESS;
	if (verdict == POLICY_DENY)
		return MESH_DENIED;
	return verdict == POLICY_ALLOW ? MESH_DIRECT : MESH_CAPTURED;
}

/* A connection request that has arrived in a pod. */
static __always_inline enum mesh_outcome
decide_inbound(const struct addr *peer, const struct addr *local, __u16 out_port, __u16 hbone_port)
{
	/*
	 * Two ports are the agent's, whoever dials and even while it is down, so that nobody can
	 * squat on them. On the wrong one it finds no note, or no TLS, and refuses.
	 */
	if (!is_loopback(local) && local->port == out_port)
		return MESH_IN_OUTBOUND;
	if (!is_loopback(local) && local->port == hbone_port)
		return MESH_IN_TUNNEL;
	/*
	 * The pod with itself, the agent with the application. By address, because the interface
	 * index does not tell: a pod that dials its own address arrives on eth0 (since 5.17). The
	 * wire cannot carry these: the kernel drops loopback addresses that come from outside, and
	 * answers a forged SYN from our own address to ourselves.
	 */
	if (is_loopback(peer) || is_loopback(local) || same_ip(peer, local))
		return MESH_IN_SELF;
	return MESH_IN_PLAINTEXT;
}

#endif
