/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* What policy says of a connection between two pods of this node. */
#ifndef MESH_POLICY_H
#define MESH_POLICY_H

#include "maps.h"

static __always_inline bool is_reserved(__u16 port)
{
	return port == MESH_OUT_PORT || port == MESH_IN_PORT || port == MESH_HBONE_PORT;
}

/*
 * The most specific entry decides; where there is none, the agent does. The compiler of the table
 * relies on this order: core/policy/compile.ts.
 */
static __always_inline __u32 policy_verdict(__u32 dst_id, __u32 src_id, __u16 port)
{
	struct policy_key key = { .dst_id = dst_id, .src_id = src_id, .port = port };
	const struct policy_val *found;
	__u32 zero = 0;
	void *table;

	/* 0 is the wildcard: who has no class must not be taken for everybody. */
	if (!dst_id || !src_id || is_reserved(port))
		return POLICY_AGENT;
	table = bpf_map_lookup_elem(&policy, &zero);
	if (!table)
		return POLICY_AGENT;
	found = bpf_map_lookup_elem(table, &key);
	if (!found) {
		key.port = 0;
		found = bpf_map_lookup_elem(table, &key);
	}
	if (!found) {
		key.src_id = 0;
		key.port = port;
		found = bpf_map_lookup_elem(table, &key);
	}
	if (!found) {
		key.port = 0;
		found = bpf_map_lookup_elem(table, &key);
	}
	return found ? found->verdict : POLICY_AGENT;
}

#endif
