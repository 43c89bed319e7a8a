/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Counting what user space is not told, so that it is told at least that. */
#ifndef MESH_FLOW_LOSS_H
#define MESH_FLOW_LOSS_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include "flow_layout.h"

/* enum flow_loss -> how often. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, FLOW_LOSSES);
	__type(key, __u32);
	__type(value, __u64);
} flow_losses SEC(".maps");

static __always_inline void lose(enum flow_loss loss)
{
	__u32 key = loss;
	__u64 *counter = bpf_map_lookup_elem(&flow_losses, &key);

	if (counter)
		__sync_fetch_and_add(counter, 1);
}

#endif
