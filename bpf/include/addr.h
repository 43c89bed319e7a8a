/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Questions about addresses. Pure: the unit tests compile this for the host. */
#ifndef MESH_ADDR_H
#define MESH_ADDR_H

#include <stdbool.h>
#include <bpf/bpf_endian.h>
#include "mesh_layout.h"

#ifndef __always_inline
#define __always_inline inline __attribute__((always_inline))
#endif

#define MAPPED_WORD bpf_htonl(0x0000ffff) /* ip[2] of ::ffff:a.b.c.d */

static __always_inline struct addr addr_of_v4(__be32 ip, __u16 port)
{
	return (struct addr){ .ip = { 0, 0, MAPPED_WORD, ip }, .port = port };
}

static __always_inline bool is_v4(const struct addr *a)
{
	return a->ip[0] == 0 && a->ip[1] == 0 && a->ip[2] == MAPPED_WORD;
}

/* 127.0.0.0/8 or ::1. */
static __always_inline bool is_loopback(const struct addr *a)
{
	if (is_v4(a))
		return (bpf_ntohl(a->ip[3]) >> 24) == 127;
	return a->ip[0] == 0 && a->ip[1] == 0 && a->ip[2] == 0 && a->ip[3] == bpf_htonl(1);
}

/* 0.0.0.0 or :: */
static __always_inline bool is_unspecified(const struct addr *a)
{
	return a->ip[0] == 0 && a->ip[1] == 0 && (a->ip[2] == 0 || a->ip[2] == MAPPED_WORD) &&
	       a->ip[3] == 0;
}

static __always_inline bool same_ip(const struct addr *a, const struct addr *b)
{
	return a->ip[0] == b->ip[0] && a->ip[1] == b->ip[1] && a->ip[2] == b->ip[2] &&
	       a->ip[3] == b->ip[3];
}

static __always_inline bool pod_has_v6(const struct pod_cfg *pod)
{
	return pod->ip6[0] || pod->ip6[1] || pod->ip6[2] || pod->ip6[3];
}

/* Whether the pod has an address of the family of `a`. */
static __always_inline bool pod_speaks(const struct pod_cfg *pod, const struct addr *a)
{
	return is_v4(a) ? pod->ip4 != 0 : pod_has_v6(pod);
}

/* Whether `a` is one of the pod's addresses. */
static __always_inline bool pod_owns(const struct pod_cfg *pod, const struct addr *a)
{
	if (!pod_speaks(pod, a))
		return false;
	if (is_v4(a))
		return a->ip[3] == pod->ip4;
	return a->ip[0] == pod->ip6[0] && a->ip[1] == pod->ip6[1] && a->ip[2] == pod->ip6[2] &&
	       a->ip[3] == pod->ip6[3];
}

#endif
