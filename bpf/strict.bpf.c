// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * Blocks or reports what a pod sends past the capture: TCP from raw sockets, and other protocols.
 *
 *   hook       cgroup_skb/egress, one instance on the cgroup of each pod that asks for it, so that
 *              the other pods' packets cost nothing
 *   reads      its constants
 *   writes     strict_counters
 *   on error   blocks what it cannot read (EPERM), where it is to block at all
 *
 * Only packets with a socket of the pod pass this hook. Those that the kernel sends by itself
 * (neighbour discovery, ICMP errors) do not, unless the namespace was made by a process in the
 * pod's cgroup; for that case they are allowed here. AF_PACKET and AF_XDP are below this hook.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include "decide.h"
#include "strict.h"

#define IP_OFFSET_MASK 0x1fff /* net/ip.h: where in its datagram a fragment belongs */
#define HOP_BY_HOP 0	      /* RFC 8200, 4.3 */
#define HOP_BY_HOP_BYTES 8    /* of the one that reports of multicast listeners have */

/* ---- set by user space before load ---- */

const volatile __u32 mode = STRICT_ENFORCE;
const volatile __be32 own_ip4 = 0;
const volatile __be32 own_ip6[4] = { 0, 0, 0, 0 };
const volatile struct strict_nameserver nameservers[STRICT_NAMESERVERS] = {};

/* enum strict_outcome -> how often. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, STRICT_OUTCOMES);
	__type(key, __u32);
	__type(value, __u64);
} strict_counters SEC(".maps");

/* What a cgroup_skb program returns. */
enum verdict { BLOCK = 0, PASS = 1 };

static __always_inline void count_strict(__u32 outcome)
{
	__u64 *counter = bpf_map_lookup_elem(&strict_counters, &outcome);

	if (counter)
		__sync_fetch_and_add(counter, 1);
}

/* The only way out of the program but for packets that nothing is the matter with. */
static __always_inline int conclude(enum strict_finding finding)
{
	bool reports = mode == STRICT_REPORT;

	if (finding == STRICT_FINE)
		return PASS;
	if (finding == STRICT_TCP)
		count_strict(reports ? STRICT_REPORTED_TCP : STRICT_BLOCKED_TCP);
	else
		count_strict(reports ? STRICT_REPORTED_PROTOCOL : STRICT_BLOCKED_PROTOCOL);
	return reports ? PASS : BLOCK;
}

/* A socket of SCTP can be a stream too, and a raw one can send TCP. */
static __always_inline bool is_tcp_socket(struct __sk_buff *skb)
{
	struct bpf_sock *sk = skb->sk;

	if (!sk)
		return false;
	sk = bpf_sk_fullsock(sk);
	return sk && sk->type == MESH_SOCK_STREAM && sk->protocol == IPPROTO_TCP;
}

/* Reads what stands behind the IP header. @returns 0, or less where it is not there */
static __always_inline long read_payload(struct __sk_buff *skb, __u32 offset, struct sent *sent)
{
	struct udphdr udp;

	if (sent->is_rest)
		return 0;
	switch (sent->protocol) {
	case IPPROTO_UDP:
		if (bpf_skb_load_bytes(skb, offset, &udp, sizeof(udp)))
			return -1;
		sent->dst.port = bpf_ntohs(udp.dest);
		return 0;
	case IPPROTO_ICMP:
	case MESH_IPPROTO_ICMPV6:
		return bpf_skb_load_bytes(skb, offset, &sent->icmp_type, 1);
	default:
		return 0;
	}
}

static __always_inline long read4(struct __sk_buff *skb, struct sent *sent)
{
	struct iphdr ip;

	if (bpf_skb_load_bytes(skb, 0, &ip, sizeof(ip)))
		return -1;
	sent->dst = addr_of_v4(ip.daddr, 0);
	sent->protocol = ip.protocol;
	sent->is_rest = ip.frag_off & bpf_htons(IP_OFFSET_MASK);
	return read_payload(skb, ip.ihl * 4, sent);
}

static __always_inline long read6(struct __sk_buff *skb, struct sent *sent)
{
	__u32 offset = sizeof(struct ipv6hdr);
	struct ipv6hdr ip;
	__u8 option[2]; /* next header, and length beyond eight bytes in units of them */

	if (bpf_skb_load_bytes(skb, 0, &ip, sizeof(ip)))
		return -1;
	sent->dst.ip[0] = ip.daddr.s6_addr32[0];
	sent->dst.ip[1] = ip.daddr.s6_addr32[1];
	sent->dst.ip[2] = ip.daddr.s6_addr32[2];
	sent->dst.ip[3] = ip.daddr.s6_addr32[3];
	sent->protocol = ip.nexthdr;
	if (ip.nexthdr == HOP_BY_HOP) {
		if (bpf_skb_load_bytes(skb, offset, option, sizeof(option)))
			return -1;
		/* Only what multicast listeners send; anything else stays a protocol of its own. */
		if (option[0] == MESH_IPPROTO_ICMPV6 && option[1] == 0) {
			sent->protocol = option[0];
			offset += HOP_BY_HOP_BYTES;
		}
	}
	return read_payload(skb, offset, sent);
}

static __always_inline bool is_own(const struct sent *sent)
{
	if (is_v4(&sent->dst))
		return own_ip4 && sent->dst.ip[3] == own_ip4;
	return sent->dst.ip[0] == own_ip6[0] && sent->dst.ip[1] == own_ip6[1] &&
	       sent->dst.ip[2] == own_ip6[2] && sent->dst.ip[3] == own_ip6[3];
}

SEC("cgroup_skb/egress")
int strict_egress(struct __sk_buff *skb)
{
	struct sent sent = { .by_tcp_socket = is_tcp_socket(skb) };
	long error = skb->protocol == bpf_htons(ETH_P_IP) ? read4(skb, &sent) : read6(skb, &sent);

	if (error)
		return conclude(STRICT_PROTOCOL);
	return conclude(decide_strict(&sent, is_own(&sent), nameservers));
}

char _license[] SEC("license") = "Dual BSD/GPL";
