/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * What the kernel and user space share for the capture of DNS. The rules of mesh_layout.h hold here
 * too; user space's side is agent/kernel/dns-layout.ts.
 */
#ifndef DNS_LAYOUT_H
#define DNS_LAYOUT_H

#include "mesh_layout.h"

/*
 * A pod's nameservers have a slot each, and a slot has a socket of the agent's, on a loopback port
 * of its own: by that port an answer finds back to the server that was asked, also where one socket
 * asks several. resolv.conf(5) has up to three nameservers; the fourth slot is for another one.
 */
enum dns_number {
	DNS_PORT = 53,
	DNS_SLOTS_PER_FAMILY = 4,
	DNS_SLOTS = 8, /* those of IPv4, then those of IPv6 */
};

/* Value of `dns_pods`, keyed by netns cookie: where the agent's sockets are. */
struct dns_pod {
	__u16 port[DNS_SLOTS]; /* on 127.0.0.1 or ::1; 0: none, and the slot's servers are left
				  alone */
};

/* Key of `dns_servers`, whose value is the address of the nameserver. */
struct dns_slot_key {
	__u64 netns; /* cookie */
	__u32 slot;
	__u32 pad;
};

/* What became of a datagram or of connect(2). Append, never renumber; as enum mesh_outcome. */
enum dns_outcome {
	DNS_CAPTURED = 0,   /* sent to the agent */
	DNS_ANSWERED = 1,   /* shown as if the nameserver itself had answered */
	DNS_AGENTS_OWN = 2, /* a socket that the agent marked: left alone */
	DNS_SELF = 3,	    /* to loopback or to the pod itself: left alone */
	DNS_ON_DEVICE = 4, /* bound to a device, or link-local: cannot reach loopback, left alone */
	DNS_NO_SLOT = 5,   /* more servers than slots, or none of this family: left alone */
	DNS_OUTCOMES,	   /* how many there are */
};

_Static_assert(sizeof(struct dns_pod) == 16, "dns_pod has a hole");
_Static_assert(sizeof(struct dns_slot_key) == 16, "dns_slot_key has a hole");

#endif
