/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Every byte that crosses the boundary between the kernel and user space.
 *
 * User space does not compile this file. It reads the layouts back from the BTF of the built
 * object (agent/kernel/layout.test.ts), so a member that moves here but not in
 * agent/kernel/layout.ts fails a test instead of a connection.
 *
 * Rules of this file:
 *  - fixed-width members only; no enum, bit field or pointer (their size is the compiler's);
 *  - __be32 for addresses as they stand in a packet, __u16 and __u32 for host order;
 *  - padding is spelled out and zero, since a hash map compares whole keys;
 *  - a change of any struct is a new MESH_ABI: pinned maps outlive the agent that made them.
 */
#ifndef MESH_LAYOUT_H
#define MESH_LAYOUT_H

#include <linux/types.h>

/* Numbers that both sides know. */
enum mesh_number {
	MESH_ABI = 2,
	/* Reserved in every enrolled pod: no application is reached there through the mesh. */
	MESH_OUT_PORT = 15001,
	MESH_IN_PORT = 15006,
	MESH_HBONE_PORT = 15008,
};

/*
 * An end of a connection. IPv4 is kept IPv4-mapped (RFC 4291, 2.5.5.2), so that there is one path
 * for both families; words and not bytes, so that access on the BPF stack is aligned.
 */
struct addr {
	__be32 ip[4];
	__u16 port;
	__u16 pad;
};

/* As the side that connects sees it. */
struct flow_key {
	struct addr src;
	struct addr dst;
};

/* Key of `handoff`. The same tuple of loopback addresses can exist in every pod. */
struct handoff_key {
	struct flow_key flow;
	__u64 netns; /* cookie */
};

/* What a socket carries: value of `notes` and `handoff`. */
struct note {
	struct addr a; /* meaning: enum note_kind; its pad: enum note_flag */
	__u32 kind;
	__u32 src_id; /* pod_cfg.id of the pod that connects, 0 where it is unknown */
};

/*
 * Whose socket it is, and with that what its address means. Both ends of a connection within a pod
 * pass the same hooks, so the kind changes when a note changes sides.
 */
enum note_kind {
	NOTE_NONE = 0,
	NOTE_ORIG_DST = 1,  /* the application's, connecting: where it wanted to go */
	NOTE_CAPTURED = 2,  /* the agent's, accepted: where the application wanted to go */
	NOTE_AGENT = 3,	    /* the agent's, connecting: the client to show, port 0 for none */
	NOTE_REAL_PEER = 4, /* the application's, accepted: the client to show */
	NOTE_DIRECT = 5, /* the application's, connected to an endpoint: the service it dialled */
};

enum note_flag {
	/* A draw among the service's endpoints fell on one that is not of this node. */
	NOTE_ELSEWHERE = 1,
};

/* Value of `pods`, keyed by netns cookie. */
struct pod_cfg {
	__be32 ip4;	/* 0 where the pod has none */
	__be32 ip6[4];	/* likewise */
	__u32 id;	/* of its class, see policy_key; 0 where it has none */
	__u32 flags;	/* enum pod_flag */
	__u16 out_port; /* where outbound connections are sent, at the pod's own address */
	__u16 dns_port; /* 0: DNS is left alone */
	__u64 gen;	/* raised by each rewrite, for diagnosis */
};

enum pod_flag {
	POD_BLOCKED = 1, /* not ready: every outbound connection fails with EPERM */
	POD_DIRECT = 2,	 /* may be vouched for: its connections to other such pods need no agent */
};

/*
 * Value of `local_ips`, keyed by address: a pod of this node that direct connections may reach. An
 * address can pass from one pod to the next, the cookie cannot.
 */
struct local_ip {
	__u64 netns; /* cookie */
	__u32 id;    /* of its class, see policy_key */
	__u32 pad;
};

/* Value of `attest`, keyed by flow_key: the kernel saw this pod open this connection. */
struct attest {
	__u64 netns; /* cookie */
	__u64 t_ns;  /* bpf_ktime_get_ns() */
	__u32 src_id;
	__u32 flags; /* none yet */
};

/*
 * Key of the tables in `policy`. Pods that no connection can tell apart are one class; its number
 * is never given again to another class. 0 is the wildcard, of sources and of ports.
 */
struct policy_key {
	__u32 dst_id;
	__u32 src_id;
	__u16 port;
	__u16 pad;
};

struct policy_val {
	__u32 verdict; /* enum policy_verdict */
	__u32 rule;    /* the policy that decides, as the agent numbers it for `gen`; 0 for none */
	__u32 gen;
};

enum policy_verdict {
	POLICY_AGENT = 0, /* the agent has to judge; so it is where nothing is found */
	POLICY_ALLOW = 1,
	POLICY_DENY = 2,
};

/* Value of `services`, keyed by the address that clients dial. */
struct service {
	__u32 set;   /* of its endpoints in `endpoints` */
	__u32 local; /* slots 0 to local - 1 are there: the endpoints on this node */
	__u32 total; /* endpoints anywhere, never 0; each as likely as another */
};

/* Key of `endpoints`, whose values are addresses. A set never changes, it is replaced by another.
 */
struct endpoint_key {
	__u32 set;
	__u32 slot;
};

/* Key of `listeners`. IPv6 is the slot of IPv4 plus one. */
enum listener_slot {
	SLOT_IN4 = 0,
	SLOT_IN6 = 1,
	SLOT_OUT4 = 2,
	SLOT_OUT6 = 3,
	SLOT_HBONE4 = 4,
	SLOT_HBONE6 = 5,
	LISTENER_SLOTS = 6,
};

/* The one value of `meta`. */
struct mesh_meta {
	__u32 abi;
	__u32 next_id; /* every class and every set of endpoints so far has a smaller number */
};

/*
 * What became of something that passed a hook. Values are an ABI: append, never renumber, never
 * reuse. Each is a key of `counters`, and the label of a metric of the same name.
 */
enum mesh_outcome {
	/* connect(2) */
	MESH_NOT_ENROLLED = 0, /* no pod of ours: left alone */
	MESH_AGENTS_OWN = 1,   /* a socket that the agent marked: left alone */
	MESH_SELF = 2,	       /* to loopback or to the pod itself: left alone */
	MESH_NOT_TCP = 3,      /* left alone */
	MESH_CAPTURED = 4,     /* sent to the agent */
	MESH_BLOCKED = 5,      /* the pod is not ready: EPERM */
	MESH_NO_MEMORY = 6,    /* the destination could not be remembered: EPERM */
	MESH_NO_ADDRESS = 7,   /* the pod has no address of this family: EPERM */
	/* from the connecting to the accepted socket */
	MESH_HANDED_OVER = 8,	   /* note left for the accepting side */
	MESH_HANDOFF_FULL = 9,	   /* not left: the agent refuses what it accepts */
	MESH_TAKEN_OVER = 10,	   /* note moved to the accepted socket */
	MESH_TAKEOVER_FAILED = 11, /* not moved: the agent refuses what it accepts */
	/* getpeername(2), accept(2) */
	MESH_PEER_ANSWERED = 12, /* answered from a note */
	/* a SYN that arrives in a pod */
	MESH_IN_NOT_TCP = 13,	   /* left alone */
	MESH_IN_SELF = 14,	   /* from the pod itself or the agent: to the application */
	MESH_IN_OUTBOUND = 15,	   /* captured by connect(2): to the outbound listener */
	MESH_IN_TUNNEL = 16,	   /* to the HBONE listener */
	MESH_IN_PLAINTEXT = 17,	   /* to the inbound listener */
	MESH_IN_NO_LISTENER = 18,  /* the agent is not there: refused */
	MESH_IN_NOT_ASSIGNED = 19, /* the kernel did not take the listener: refused */
	/* two pods of this node, without the agent */
	MESH_DIRECT = 20,      /* connect(2): left alone, or sent to an endpoint */
	MESH_DENIED = 21,      /* connect(2): policy forbids it: EPERM */
	MESH_ATTESTED = 22,    /* the source is written down */
	MESH_ATTEST_FULL = 23, /* it could not be: the agent judges */
	MESH_FORGED = 24,      /* the source address is not the pod's own: the agent judges */
	MESH_IN_DIRECT = 25,   /* a SYN from an attested source: to the application */
	MESH_IN_DENIED = 26,   /* a SYN from an attested source that policy forbids: refused */
	MESH_OUTCOMES,	       /* how many there are */
};

_Static_assert(sizeof(struct addr) == 20, "addr has a hole");
_Static_assert(sizeof(struct flow_key) == 40, "flow_key has a hole");
_Static_assert(sizeof(struct handoff_key) == 48, "handoff_key has a hole");
_Static_assert(sizeof(struct note) == 28, "note has a hole");
_Static_assert(sizeof(struct pod_cfg) == 40, "pod_cfg has a hole");
_Static_assert(sizeof(struct local_ip) == 16, "local_ip has a hole");
_Static_assert(sizeof(struct attest) == 24, "attest has a hole");
_Static_assert(sizeof(struct policy_key) == 12, "policy_key has a hole");
_Static_assert(sizeof(struct policy_val) == 12, "policy_val has a hole");
_Static_assert(sizeof(struct service) == 12, "service has a hole");
_Static_assert(sizeof(struct endpoint_key) == 8, "endpoint_key has a hole");

#endif
