/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * What the kernel and user space share for probes from the node and for strict egress. The rules of
 * mesh_layout.h hold here too; user space's side is agent/kernel/probe-layout.ts.
 */
#ifndef PROBE_LAYOUT_H
#define PROBE_LAYOUT_H

#include "mesh_layout.h"

enum guard_number {
	/* Of all pods of a node, by address. Full: the pod's enrolment fails. */
	PROBE_PORTS_MAX = 16384,
	/* resolv.conf(5) has up to three; a pod of both families may be given three of each. */
	STRICT_NAMESERVERS = 6,
};

/* What became of a probe. Append, never renumber; as enum mesh_outcome. */
enum probe_outcome {
	PROBE_MARKED = 0,    /* given the probes' source address */
	PROBE_NOT_BOUND = 1, /* could not be given it: sent as it is */
	PROBE_LET_IN = 2,    /* arrived on a declared port: to the application */
	PROBE_UNDECLARED =
		3,	/* had the source address, and the port is not declared: to the agent */
	PROBE_OUTCOMES, /* how many there are */
};

/* What a pod under strict egress may not do. */
enum strict_mode {
	STRICT_REPORT = 1,
	STRICT_ENFORCE = 2,
};

/* What a packet of such a pod was found to be. Append, never renumber. */
enum strict_outcome {
	STRICT_BLOCKED_TCP = 0,	     /* TCP that no TCP socket made: EPERM */
	STRICT_BLOCKED_PROTOCOL = 1, /* neither TCP nor allowed: EPERM */
	STRICT_REPORTED_TCP = 2,     /* the same, but let go */
	STRICT_REPORTED_PROTOCOL = 3,
	STRICT_OUTCOMES, /* how many there are */
};

/* An address of a nameserver, IPv4 mapped; all zero for none. */
struct strict_nameserver {
	__be32 ip[4];
};

_Static_assert(sizeof(struct strict_nameserver) == 16, "strict_nameserver has a hole");

#endif
