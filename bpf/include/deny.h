/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Telling user space of connections that are refused. */
#ifndef MESH_DENY_H
#define MESH_DENY_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include "flow_layout.h"
#include "flow_loss.h"

/* Apart from `flows`, so that a flood of connections cannot hide a refusal. Full: counted. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, DENY_RING_BYTES);
} denies SEC(".maps");

/*
 * What is not known of `denial` is zero; `at_ns` is filled in here.
 *
 * Wakes the agent where it has read all before this one, and is not awake therefore: what comes
 * while it reads needs no call of its own, and a flood of refusals is no flood of calls.
 */
static __always_inline void tell_denied(struct deny_event *denial)
{
	struct deny_event *event = bpf_ringbuf_reserve(&denies, sizeof(*event), 0);

	if (!event) {
		lose(FLOW_LOST_DENIES);
		return;
	}
	denial->at_ns = bpf_ktime_get_ns();
	*event = *denial;
	bpf_ringbuf_submit(event, 0);
}

#endif
