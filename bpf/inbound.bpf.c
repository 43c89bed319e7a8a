// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * Hands connections that arrive in a pod to the agent's listeners there; to the application those
 * whose source this very kernel has seen, where policy allows them.
 *
 *   hook       sk_lookup, one instance of this program and of `listeners` per pod: the hook cannot
 *              ask which network namespace it runs in
 *   reads      listeners   sockets of the agent, in this pod's network namespace
 *              attest, local_ips, policy, probe_ports
 *   writes     counters, probe_counters, denies
 *   on error   refuses (RST). When the agent is gone the kernel has emptied the slots, and to fall
 *              through to the application would be to bypass the mesh.
 */
#include <linux/bpf.h>
#include <linux/in.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include "ctx.h"
#include "decide.h"
#include "maps.h"
#include "mesh_verdict.h"
#include "policy.h"
#include "probe.h"

#define MESH_AF_INET6 10 /* linux/socket.h */

/* ---- set by user space before load ---- */

const volatile __u16 out_port = 0;
const volatile __u16 hbone_port = 0;
const volatile __u64 self_netns = 0; /* cookie of the namespace this instance is for */

/* No program is attached to this map: it holds listeners, and nothing of sockmap's data path. */
struct {
	__uint(type, BPF_MAP_TYPE_SOCKMAP);
	__uint(max_entries, LISTENER_SLOTS);
	__type(key, __u32);   /* enum listener_slot */
	__type(value, __u64); /* from user space: a descriptor */
} listeners SEC(".maps");

/* The only way out of the program. */
static __always_inline int conclude(enum mesh_outcome outcome)
{
	count(outcome);
	switch (outcome) {
	case MESH_IN_NOT_TCP:
	case MESH_IN_SELF:
	case MESH_IN_OUTBOUND:
	case MESH_IN_TUNNEL:
	case MESH_IN_PLAINTEXT:
	case MESH_IN_DIRECT:
		return SK_PASS;
	default:
		return SK_DROP;
	}
}

/* `src_id` is 0 where nobody vouches for the source. */
static __always_inline int refuse(const struct flow_key *flow, __u32 src_id,
				  enum mesh_outcome outcome)
{
	struct deny_event denial = {
		.netns = self_netns,
		.flow = *flow,
		.src_id = src_id,
		.outcome = outcome,
	};

	if (outcome == MESH_IN_DENIED)
		tell_denied_by_policy(&denial);
	else
		tell_denied(&denial);
	return conclude(outcome);
}

static __always_inline int steer(struct bpf_sk_lookup *ctx, const struct flow_key *flow,
				 __u32 slot4, enum mesh_outcome outcome)
{
	__u32 slot = slot4 + (ctx->family == MESH_AF_INET6);
	struct bpf_sock *listener = bpf_map_lookup_elem(&listeners, &slot);
	long error;

	if (!listener)
		return refuse(flow, 0, MESH_IN_NO_LISTENER);
	/*
	 * Without the flag a process of the pod that runs as the agent's uid, which root in a
	 * container does, could join the listener's SO_REUSEPORT group and take its connections.
	 */
	error = bpf_sk_assign(ctx, listener, BPF_SK_LOOKUP_F_NO_REUSEPORT);
	bpf_sk_release(listener);
	return error ? refuse(flow, 0, MESH_IN_NOT_ASSIGNED) : conclude(outcome);
}

static __always_inline void ends(struct bpf_sk_lookup *ctx, struct addr *peer, struct addr *local)
{
	*peer = addr_of_v4(READ_CTX(ctx->remote_ip4), bpf_ntohs(READ_CTX(ctx->remote_port)));
	*local = addr_of_v4(READ_CTX(ctx->local_ip4), READ_CTX(ctx->local_port));
	if (READ_CTX(ctx->family) != MESH_AF_INET6)
		return;
	peer->ip[0] = READ_CTX(ctx->remote_ip6[0]);
	peer->ip[1] = READ_CTX(ctx->remote_ip6[1]);
	peer->ip[2] = READ_CTX(ctx->remote_ip6[2]);
	peer->ip[3] = READ_CTX(ctx->remote_ip6[3]);
	local->ip[0] = READ_CTX(ctx->local_ip6[0]);
	local->ip[1] = READ_CTX(ctx->local_ip6[1]);
	local->ip[2] = READ_CTX(ctx->local_ip6[2]);
	local->ip[3] = READ_CTX(ctx->local_ip6[3]);
}

/*
 * What policy says of a source that sockops.bpf.c has vouched for; of any other nothing, whatever
 * address it shows.
 */
static __always_inline __u32 verdict_on(const struct flow_key *flow)
{
	const struct attest *source = bpf_map_lookup_elem(&attest, flow);
	const struct local_ip *self;

	if (!source)
		return POLICY_AGENT;
	self = bpf_map_lookup_elem(&local_ips, flow->dst.ip);
	if (!self || self->netns != self_netns)
		return POLICY_AGENT;
	return policy_verdict(self->id, source->src_id, flow->dst.port);
}

static __always_inline __u32 source_of(const struct flow_key *flow)
{
	const struct attest *source = bpf_map_lookup_elem(&attest, flow);

	return source ? source->src_id : 0;
}

SEC("sk_lookup")
int in_lookup(struct bpf_sk_lookup *ctx)
{
	struct flow_key flow = {};
	enum mesh_outcome outcome;

	if (ctx->protocol != IPPROTO_TCP)
		return conclude(MESH_IN_NOT_TCP);
	ends(ctx, &flow.src, &flow.dst);
	outcome = decide_inbound(&flow.src, &flow.dst, out_port, hbone_port);
	switch (outcome) {
	case MESH_IN_OUTBOUND:
		return steer(ctx, &flow, SLOT_OUT4, outcome);
	case MESH_IN_TUNNEL:
		return steer(ctx, &flow, SLOT_HBONE4, outcome);
	case MESH_IN_PLAINTEXT:
		if (is_probe(&flow.src, &flow.dst)) /* which has counted it */
			return SK_PASS;
		switch (verdict_on(&flow)) {
		case POLICY_ALLOW:
			return conclude(MESH_IN_DIRECT);
		case POLICY_DENY:
			return refuse(&flow, source_of(&flow), MESH_IN_DENIED);
		}
		return steer(ctx, &flow, SLOT_IN4, outcome);
	default:
		return conclude(outcome);
	}
}

char _license[] SEC("license") = "Dual BSD/GPL";
