/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * What a pod under strict egress may send. Pure, as decide.h: test/kernel/strict-egress.test.ts
 * sends each kind.
 */
#ifndef MESH_STRICT_H
#define MESH_STRICT_H

#include <linux/in.h>
#include "addr.h"
#include "probe_layout.h"

#define MESH_IPPROTO_ICMPV6 58 /* linux/in6.h */
#define DNS_PORT_NUMBER 53

/* A packet as it leaves the pod. */
struct sent {
	struct addr dst; /* port 0 where it is not UDP */
	__u8 protocol;
	__u8 icmp_type;
	bool by_tcp_socket; /* whose connect(2) the capture has seen */
	bool is_rest;	    /* of a datagram that was cut before it came here, as no socket but a
			       raw one does: has no header to read */
};

enum strict_finding {
	STRICT_FINE,
	STRICT_TCP,
	STRICT_PROTOCOL,
};

/* Errors (RFC 792); no echo, whose payload is the sender's to choose. */
static __always_inline bool is_needed_icmp(__u8 type)
{
	return type == 3 || type == 11 || type == 12;
}

/* Errors (RFC 4443), listeners (RFC 2710, RFC 3810), neighbours (RFC 4861). */
static __always_inline bool is_needed_icmp6(__u8 type)
{
	return (type >= 1 && type <= 4) || (type >= 130 && type <= 137) || type == 143;
}

/* Unset entries are ::, which no packet is sent to. */
static __always_inline bool is_nameserver(const struct addr *dst,
					  const volatile struct strict_nameserver *nameservers)
{
	for (int i = 0; i < STRICT_NAMESERVERS; i++) {
		if (dst->ip[0] == nameservers[i].ip[0] && dst->ip[1] == nameservers[i].ip[1] &&
		    dst->ip[2] == nameservers[i].ip[2] && dst->ip[3] == nameservers[i].ip[3])
			return true;
	}
	return false;
}

static __always_inline enum strict_finding
decide_strict(const struct sent *sent, bool to_itself,
	      const volatile struct strict_nameserver *nameservers)
{
	if (to_itself || is_loopback(&sent->dst))
		return STRICT_FINE;
	switch (sent->protocol) {
	case IPPROTO_TCP:
		return sent->by_tcp_socket && !sent->is_rest ? STRICT_FINE : STRICT_TCP;
	case IPPROTO_UDP:
		if (sent->is_rest || sent->dst.port != DNS_PORT_NUMBER)
			return STRICT_PROTOCOL;
		return is_nameserver(&sent->dst, nameservers) ? STRICT_FINE : STRICT_PROTOCOL;
	case IPPROTO_ICMP:
		if (sent->is_rest || !is_v4(&sent->dst))
			return STRICT_PROTOCOL;
		return is_needed_icmp(sent->icmp_type) ? STRICT_FINE : STRICT_PROTOCOL;
	case MESH_IPPROTO_ICMPV6:
		if (sent->is_rest || is_v4(&sent->dst))
			return STRICT_PROTOCOL;
		return is_needed_icmp6(sent->icmp_type) ? STRICT_FINE : STRICT_PROTOCOL;
	default:
		return STRICT_PROTOCOL;
	}
}

#endif
