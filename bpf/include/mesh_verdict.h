/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Counting, so that no outcome goes unseen. */
#ifndef MESH_VERDICT_H
#define MESH_VERDICT_H

#include "maps.h"

static __always_inline void count(enum mesh_outcome outcome)
{
	__u32 key = outcome;
	__u64 *counter = bpf_map_lookup_elem(&counters, &key);

	/* Per CPU, yet atomic: connect(2) runs in process context and can be preempted here. */
	if (counter)
		__sync_fetch_and_add(counter, 1);
}

#endif
