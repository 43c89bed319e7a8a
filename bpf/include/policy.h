/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* What policy says of a connection between two pods of this node. */
#ifndef MESH_POLICY_H
#define MESH_POLICY_H

#include <stdbool.h>
#include "maps.h"

static __always_inline bool is_reserved(__u16 port)
{
	return port == MESH_OUT_PORT || port == MESH_IN_PORT || port == MESH_HBONE_PORT;
}

/*
 * The most specific entry decides; where there is none, the agent does. The compiler of the table
 * relies on this order: core/policy/compile.ts.
 */
static __always_inline const struct policy_val *policy_entry(__u32 dst_id, __u32 src_id, __u16 port)
{
	struct policy_key key = { .dst_id = dst_id, .src_id = src_id, .port = port };
	const struct policy_val *found;
	__u32 zero = 0;
	void *table;

	/* 0 is the wildcard: who has no class must not be taken for everybody. */
	if (!dst_id || !src_id || is_reserved(port))
		return NULL;
	table = bpf_map_lookup_elem(&policy, &zero);
	if (!table)
		return NULL;
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
	return found;
}

static __always_inline __u32 policy_verdict(__u32 dst_id, __u32 src_id, __u16 port)
{
	const struct policy_val *found = policy_entry(dst_id, src_id, port);

	return found ? found->verdict : POLICY_AGENT;
}

/* Tells of a connection from `src_id` to the pod at `denial->flow.dst`, and of what forbids it. */
static __always_inline void tell_denied_by_policy(struct deny_event *denial)
{
	const struct local_ip *local = bpf_map_lookup_elem(&local_ips, denial->flow.dst.ip);
	const struct policy_val *entry;

	denial->dst_id = local ? local->id : 0;
	entry = policy_entry(denial->dst_id, denial->src_id, denial->flow.dst.port);
	/* Another one, or none, where the table was replaced meanwhile. */
	if (entry && entry->verdict == POLICY_DENY) {
		denial->rule = entry->rule;
		denial->generation = entry->gen;
	}
	tell_denied(denial);
}

#endif
