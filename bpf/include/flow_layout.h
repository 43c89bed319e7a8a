/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * What the kernel tells user space of connections: records of the rings `flows` and `denies`. The
 * rules of mesh_layout.h hold here too; user space's side is agent/kernel/flow-layout.ts.
 */
#ifndef FLOW_LAYOUT_H
#define FLOW_LAYOUT_H

#include "mesh_layout.h"

enum flow_number {
	/* Some 7,700 events of 136 bytes with their header: 0.3 s of the most that was measured. */
	FLOW_RING_BYTES = 1 << 20,
	/* Some 2,900 of 88. */
	DENY_RING_BYTES = 1 << 18,
};

enum flow_kind {
	FLOW_OPENED = 0, /* the handshake is complete */
	FLOW_CLOSED = 1, /* the last event of its socket, and the only one if it never opened */
};

/*
 * Whose socket it is. FLOW_PLAIN_OUT and FLOW_PLAIN_IN are what is left: nothing vouches for the
 * other end. Of those that connect, the agent itself is never among them.
 */
enum flow_role {
	FLOW_PLAIN_OUT = 0,  /* an application's, connecting past the agent, not attested */
	FLOW_PLAIN_IN = 1,   /* accepted by the agent from outside the pod, or of a probe */
	FLOW_DIRECT_OUT = 2, /* an application's, connecting to a pod of this node, attested */
	FLOW_DIRECT_IN = 3,  /* an application's, accepted from one */
	FLOW_CAPTURED = 4,   /* an application's, connected to the agent */
	FLOW_AGENT_IN = 5,   /* the agent's end of that */
	FLOW_AGENT_OUT = 6,  /* the agent's, to a peer or to an application of the pod */
	FLOW_APP_IN = 7,     /* the application's end of that */
	FLOW_ROLES,
};

enum flow_flag {
	FLOW_WAS_OPEN = 1, /* its handshake had been completed */
	FLOW_RESET = 2,	   /* it did not end with a FIN in each direction */
};

/* A record of `flows`. */
struct flow_event {
	__u64 at_ns;  /* CLOCK_MONOTONIC */
	__u64 netns;  /* cookie */
	__u64 socket; /* cookie */
	/* Payload that the other end has acknowledged, and that came from it. 0 while it opens. */
	__u64 sent_bytes;
	__u64 received_bytes;
	__u64 duration_ns; /* from connect() or, where it was accepted, from the end of the
			      handshake */
	struct flow_key flow;
	struct addr dialled; /* where the application wanted to go; port 0: to flow.dst itself */
	__u32 src_id;	     /* of the connecting pod where the kernel vouches for it, else 0 */
	__u32 dst_id;	     /* of the pod of the accepting socket, 0 where it is not this one */
	__u32 srtt_us;	     /* smoothed round-trip time */
	__u32 retransmits;   /* segments sent again */
	__u8 kind;	     /* enum flow_kind */
	__u8 role;	     /* enum flow_role */
	__u8 flags;	     /* enum flow_flag */
	__u8 pad;
};

/* A record of `denies`: a connection that a program of ours has refused. */
struct deny_event {
	__u64 at_ns; /* CLOCK_MONOTONIC */
	__u64 netns; /* cookie: of the socket that connects, or of the pod it was refused at */
	struct flow_key flow; /* no source port where connect() was refused */
	__u32 src_id;	      /* 0: unknown */
	__u32 dst_id;	      /* 0: unknown */
	__u32 rule;	      /* with `generation`: policy_val of the table; 0: none */
	__u32 generation;
	__u32 outcome; /* enum mesh_outcome */
	__u32 pad;
};

/* Value of `flow_socks`, which goes with the socket. */
struct flow_sock {
	__u64 since_ns;
	struct addr dialled;
	__u32 src_id;
	__u32 dst_id;
	__u8 role;
	__u8 flags;
	__u8 pad[2];
};

/* Key of `flow_losses`. Append, never renumber; the label of a metric of the same name. */
enum flow_loss {
	FLOW_LOST_FLOWS = 0,	 /* the ring was full */
	FLOW_LOST_DENIES = 1,	 /* likewise */
	FLOW_LOST_UNTRACKED = 2, /* no memory to follow the socket with: none of its events */
	FLOW_LOSSES,
};

_Static_assert(sizeof(struct flow_event) == 128, "flow_event has a hole");
_Static_assert(sizeof(struct deny_event) == 80, "deny_event has a hole");
_Static_assert(sizeof(struct flow_sock) == 40, "flow_sock has a hole");

#endif
