/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The maps that all programs of one agent share, those of deny.h included. User space gives each a
 * pin path before load, so the first object makes them and the others, and later agents, find them
 * (agent/kernel/pins.ts).
 */
#ifndef MESH_MAPS_H
#define MESH_MAPS_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include "deny.h"
#include "mesh_layout.h"

/* Who is enrolled: netns cookie -> configuration. Full: enrolment fails, and the pod with it. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u64);
	__type(value, struct pod_cfg);
} pods SEC(".maps");

/*
 * What a socket carries; freed with it. User space reads and writes it by file descriptor, which
 * takes a descriptor of this map: to hold one is to be the agent.
 */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct note);
} notes SEC(".maps");

/*
 * From connect to accept, within one network namespace. Not LRU: one pod's flood would evict the
 * others' entries. Full: the agent refuses the connection. An entry lives for one handshake.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct handoff_key);
	__type(value, struct note);
} handoff SEC(".maps");

/* Pods of this node that direct connections may reach. Full: those that are missing use the agent.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 8192);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __be32[4]);
	__type(value, struct local_ip);
} local_ips SEC(".maps");

/*
 * Open direct connections, from before the SYN until the connecting socket closes. No netns in the
 * key: addresses of pods are unique on a node. Full: what comes uses the agent.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 262144);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct flow_key);
	__type(value, struct attest);
} attest SEC(".maps");

/* One slot with the table in force: policy_key -> policy_val. A new table takes its place whole. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 1);
	__type(key, __u32);
	__array(
		values, struct {
			__uint(type, BPF_MAP_TYPE_HASH);
			__uint(max_entries, 65536);
			__uint(map_flags, BPF_F_NO_PREALLOC);
			__uint(key_size, sizeof(struct policy_key));
			__uint(value_size, sizeof(struct policy_val));
		});
} policy SEC(".maps");

/* Services that are resolved here. Full: those that are missing are the agent's. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct addr);
	__type(value, struct service);
} services SEC(".maps");

/* Their endpoints on this node. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 262144);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct endpoint_key);
	__type(value, struct addr);
} endpoints SEC(".maps");

/* enum mesh_outcome -> how often. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, MESH_OUTCOMES);
	__type(key, __u32);
	__type(value, __u64);
} counters SEC(".maps");

/* For user space alone: which layout the pinned maps have, so that a newer one is not misread. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct mesh_meta);
} meta SEC(".maps");

#endif
