/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Health probes of the node's own prober (the kubelet). They come from an address that exists on
 * every node and that only the node itself can use: an answer to it never leaves the node, so that
 * a pod that forges it completes no handshake.
 */
#ifndef MESH_PROBE_H
#define MESH_PROBE_H

#include <bpf/bpf_helpers.h>
#include "addr.h"
#include "probe_layout.h"

/* 169.254.7.127 and fd16:9254:7127:1337:ffff:ffff:ffff:ffff, as Istio's ambient mode has them. */
#define PROBE_IP4 bpf_htonl(0xa9fe077f)
#define PROBE_IP6                                                                                  \
	{                                                                                          \
		bpf_htonl(0xfd169254), bpf_htonl(0x71271337), bpf_htonl(0xffffffff),               \
			bpf_htonl(0xffffffff)                                                      \
	}

/* Pod's address and port -> netns cookie of the pod that declares a probe there. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, PROBE_PORTS_MAX);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct addr);
	__type(value, __u64);
} probe_ports SEC(".maps");

/* enum probe_outcome -> how often. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, PROBE_OUTCOMES);
	__type(key, __u32);
	__type(value, __u64);
} probe_counters SEC(".maps");

static __always_inline void count_probe(enum probe_outcome outcome)
{
	__u32 key = outcome;
	__u64 *counter = bpf_map_lookup_elem(&probe_counters, &key);

	if (counter)
		__sync_fetch_and_add(counter, 1);
}

/* Whether some enrolled pod declares a probe at this address and port. */
static __always_inline bool is_declared(const struct addr *a)
{
	return bpf_map_lookup_elem(&probe_ports, a) != NULL;
}

static __always_inline bool is_probe_source(const struct addr *a)
{
	const __be32 ip6[4] = PROBE_IP6;

	if (is_v4(a))
		return a->ip[3] == PROBE_IP4;
	return a->ip[0] == ip6[0] && a->ip[1] == ip6[1] && a->ip[2] == ip6[2] && a->ip[3] == ip6[3];
}

/* Whether a connection request is a probe that its pod expects. */
static __always_inline bool is_probe(const struct addr *peer, const struct addr *local)
{
	if (!is_probe_source(peer))
		return false;
	if (is_declared(local)) {
		count_probe(PROBE_LET_IN);
		return true;
	}
	count_probe(PROBE_UNDECLARED);
	return false;
}

#endif
