// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * Sends an enrolled pod's DNS queries over UDP to the agent, and shows the answers as coming from
 * the nameserver that was asked.
 *
 *   hook       cgroup/connect4,6 and sendmsg4,6 on the way out, recvmsg4,6 and getpeername4,6 on
 * the way back, at the root of the agent's part of the cgroup tree. A socket of AF_INET6 that
 * speaks to a mapped IPv4 address leaves by sendmsg4 and comes back by recvmsg6. reads dns_pods,
 * pods, notes writes     dns_servers   a slot for each nameserver that the pod speaks to
 *              dns_counters
 *   on error   left alone: DNS carries no policy. Once captured it stays so: with the agent gone
 * its ports are closed, and queries fail like those to any nameserver that is down.
 */
#include <linux/bpf.h>
#include <linux/in.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include "addr.h"
#include "dns_layout.h"
#include "maps.h"

/* None of these programs ever refuses. */
enum verdict { PROCEED = 1 };

/* Pods whose DNS is captured. As many as `pods` has, so that it is never the first to be full. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u64); /* netns cookie */
	__type(value, struct dns_pod);
} dns_pods SEC(".maps");

/* The nameserver of each slot. Has room for all slots of all pods. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096 * DNS_SLOTS);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct dns_slot_key);
	__type(value, struct addr);
} dns_servers SEC(".maps");

/* enum dns_outcome -> how often. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, DNS_OUTCOMES);
	__type(key, __u32);
	__type(value, __u64);
} dns_counters SEC(".maps");

static __always_inline void count_dns(enum dns_outcome outcome)
{
	__u32 key = outcome;
	__u64 *counter = bpf_map_lookup_elem(&dns_counters, &key);

	if (counter)
		__sync_fetch_and_add(counter, 1);
}

/* fe80::/10 */
static __always_inline bool is_link_local(const struct addr *a)
{
	return (a->ip[0] & bpf_htonl(0xffc00000)) == bpf_htonl(0xfe800000);
}

/* 127.0.0.1 and ::1, where the agent's sockets are. */
static __always_inline struct addr loopback_for(const struct addr *server)
{
	struct addr to = { .ip = { 0, 0, 0, bpf_htonl(1) } };

	if (is_v4(server))
		to = addr_of_v4(bpf_htonl(INADDR_LOOPBACK), 0);
	return to;
}

static __always_inline __u32 first_slot(const struct addr *server)
{
	return is_v4(server) ? 0 : DNS_SLOTS_PER_FAMILY;
}

/* The slot of `server`, a free one where it has none; DNS_SLOTS where there is none left. */
static __always_inline __u32 slot_of(__u64 netns, const struct addr *server)
{
	struct dns_slot_key key = { .netns = netns, .slot = first_slot(server) };
	const struct addr *taken;

	for (int i = 0; i < DNS_SLOTS_PER_FAMILY; i++, key.slot++) {
		taken = bpf_map_lookup_elem(&dns_servers, &key);
		/* Two CPUs may want one slot: the map lets one of them have it. */
		if (!taken && !bpf_map_update_elem(&dns_servers, &key, server, BPF_NOEXIST))
			return key.slot;
		if (!taken)
			taken = bpf_map_lookup_elem(&dns_servers, &key);
		if (taken && same_ip(taken, server))
			return key.slot;
	}
	return DNS_SLOTS;
}

static __always_inline enum dns_outcome decide(struct bpf_sock_addr *ctx, __u64 netns,
					       const struct addr *server)
{
	const struct pod_cfg *pod = bpf_map_lookup_elem(&pods, &netns);
	struct bpf_sock *sk = ctx->sk;
	const struct note *note;

	if (is_loopback(server) || is_unspecified(server) || (pod && pod_owns(pod, server)))
		return DNS_SELF;
	note = bpf_sk_storage_get(&notes, sk, NULL, 0);
	if (note && note->kind == NOTE_AGENT)
		return DNS_AGENTS_OWN;
	if (sk->bound_dev_if || is_link_local(server))
		return DNS_ON_DEVICE;
	return DNS_CAPTURED;
}

/* On which loopback port the agent listens for `server`; 0 where the datagram is left alone. */
static __always_inline __u16 capture(struct bpf_sock_addr *ctx, const struct addr *server)
{
	__u64 netns = bpf_get_netns_cookie(ctx);
	const struct dns_pod *dns;
	enum dns_outcome outcome;
	__u16 port = 0;
	__u32 slot;

	dns = bpf_map_lookup_elem(&dns_pods, &netns);
	if (!dns)
		return 0;
	outcome = decide(ctx, netns, server);
	if (outcome == DNS_CAPTURED) {
		slot = slot_of(netns, server);
		if (slot < DNS_SLOTS)
			port = dns->port[slot];
		if (!port)
			outcome = DNS_NO_SLOT;
	}
	count_dns(outcome);
	return port;
}

static __always_inline bool is_query(struct bpf_sock_addr *ctx, const struct addr *server)
{
	return server->port == DNS_PORT && ctx->protocol == IPPROTO_UDP;
}

/* The nameserver that the agent answers for at `from`; NULL for every other address. */
static __always_inline const struct addr *server_behind(struct bpf_sock_addr *ctx,
							const struct addr *from)
{
	struct addr loopback = loopback_for(from);
	struct dns_slot_key key = { .slot = first_slot(from) };
	const struct dns_pod *dns;

	if (ctx->protocol != IPPROTO_UDP || !same_ip(from, &loopback))
		return NULL;
	key.netns = bpf_get_netns_cookie(ctx);
	dns = bpf_map_lookup_elem(&dns_pods, &key.netns);
	if (!dns)
		return NULL;
	for (int i = 0; i < DNS_SLOTS_PER_FAMILY; i++, key.slot++) {
		if (key.slot < DNS_SLOTS && dns->port[key.slot] == from->port)
			return bpf_map_lookup_elem(&dns_servers, &key);
	}
	return NULL;
}

static __always_inline int go4(struct bpf_sock_addr *ctx)
{
	struct addr server = addr_of_v4(ctx->user_ip4, bpf_ntohs(ctx->user_port));
	__u16 port = is_query(ctx, &server) ? capture(ctx, &server) : 0;

	if (port) {
		ctx->user_ip4 = bpf_htonl(INADDR_LOOPBACK);
		ctx->user_port = bpf_htons(port);
	}
	return PROCEED;
}

static __always_inline struct addr user_addr6(struct bpf_sock_addr *ctx)
{
	return (struct addr){
		.ip = { ctx->user_ip6[0], ctx->user_ip6[1], ctx->user_ip6[2], ctx->user_ip6[3] },
		.port = bpf_ntohs(ctx->user_port),
	};
}

static __always_inline void show6(struct bpf_sock_addr *ctx, const struct addr *a)
{
	ctx->user_ip6[0] = a->ip[0];
	ctx->user_ip6[1] = a->ip[1];
	ctx->user_ip6[2] = a->ip[2];
	ctx->user_ip6[3] = a->ip[3];
	ctx->user_port = bpf_htons(a->port);
}

static __always_inline int go6(struct bpf_sock_addr *ctx)
{
	struct addr server = user_addr6(ctx);
	__u16 port = is_query(ctx, &server) ? capture(ctx, &server) : 0;
	struct addr to = loopback_for(&server);

	if (port) {
		to.port = port;
		show6(ctx, &to);
	}
	return PROCEED;
}

static __always_inline int back4(struct bpf_sock_addr *ctx)
{
	struct addr from = addr_of_v4(ctx->user_ip4, bpf_ntohs(ctx->user_port));
	const struct addr *server = server_behind(ctx, &from);

	if (server) {
		ctx->user_ip4 = server->ip[3];
		ctx->user_port = bpf_htons(server->port);
		count_dns(DNS_ANSWERED);
	}
	return PROCEED;
}

static __always_inline int back6(struct bpf_sock_addr *ctx)
{
	struct addr from = user_addr6(ctx);
	const struct addr *server = server_behind(ctx, &from);

	if (server) {
		show6(ctx, server);
		count_dns(DNS_ANSWERED);
	}
	return PROCEED;
}

SEC("cgroup/connect4")
int dns_connect4(struct bpf_sock_addr *ctx)
{
	return go4(ctx);
}

SEC("cgroup/connect6")
int dns_connect6(struct bpf_sock_addr *ctx)
{
	return go6(ctx);
}

SEC("cgroup/sendmsg4")
int dns_sendmsg4(struct bpf_sock_addr *ctx)
{
	return go4(ctx);
}

SEC("cgroup/sendmsg6")
int dns_sendmsg6(struct bpf_sock_addr *ctx)
{
	return go6(ctx);
}

SEC("cgroup/recvmsg4")
int dns_recvmsg4(struct bpf_sock_addr *ctx)
{
	return back4(ctx);
}

SEC("cgroup/recvmsg6")
int dns_recvmsg6(struct bpf_sock_addr *ctx)
{
	return back6(ctx);
}

SEC("cgroup/getpeername4")
int dns_peer4(struct bpf_sock_addr *ctx)
{
	return back4(ctx);
}

SEC("cgroup/getpeername6")
int dns_peer6(struct bpf_sock_addr *ctx)
{
	return back6(ctx);
}

char _license[] SEC("license") = "Dual BSD/GPL";
