// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * Sends an enrolled pod's outbound TCP connections to the agent, which listens in the pod; or lets
 * them go to another pod of this node where policy says of both that they may.
 *
 *   hook       cgroup/connect4 and connect6, at the root of the agent's part of the cgroup tree
 *   reads      pods        by the netns of the socket, so that moving a process changes nothing
 *              services, endpoints, local_ips, policy
 *   writes     notes       the original destination, for sockops.bpf.c and peer.bpf.c
 *              counters, denies
 *   on error   EPERM. Letting the connection through would carry it past all policy. Where a table
 *              does not know the answer, the agent does.
 */
#include <linux/bpf.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include "decide.h"
#include "maps.h"
#include "mesh_verdict.h"
#include "policy.h"

/* What a cgroup/connect program returns: 0 makes connect(2) fail with EPERM. */
enum verdict { REFUSE = 0, PROCEED = 1 };

/* Names the pod's own address as the source: the socket mostly has none yet. */
static __always_inline void tell_refused(struct bpf_sock_addr *ctx, const struct pod_cfg *pod,
					 const struct addr *dst, enum mesh_outcome outcome)
{
	struct deny_event denial = {
		.netns = bpf_get_netns_cookie(ctx),
		.flow = { .dst = *dst },
		.src_id = pod->id,
		.outcome = outcome,
	};

	if (is_v4(dst)) {
		denial.flow.src = addr_of_v4(pod->ip4, 0);
	} else {
		denial.flow.src.ip[0] = pod->ip6[0];
		denial.flow.src.ip[1] = pod->ip6[1];
		denial.flow.src.ip[2] = pod->ip6[2];
		denial.flow.src.ip[3] = pod->ip6[3];
	}
	if (outcome == MESH_DENIED)
		tell_denied_by_policy(&denial);
	else
		tell_denied(&denial);
}

/* The only way out of the programs for an enrolled pod. */
static __always_inline int conclude(struct bpf_sock_addr *ctx, const struct pod_cfg *pod,
				    const struct addr *dst, enum mesh_outcome outcome)
{
	count(outcome);
	switch (outcome) {
	case MESH_AGENTS_OWN:
	case MESH_SELF:
	case MESH_NOT_TCP:
	case MESH_CAPTURED:
	case MESH_DIRECT:
		return PROCEED;
	default:
		tell_refused(ctx, pod, dst, outcome);
		return REFUSE;
	}
}

static __always_inline int leave_alone(void)
{
	count(MESH_NOT_ENROLLED);
	return PROCEED;
}

static __always_inline const struct pod_cfg *pod_of(struct bpf_sock_addr *ctx)
{
	__u64 netns = bpf_get_netns_cookie(ctx);

	return bpf_map_lookup_elem(&pods, &netns);
}

/*
 * Where `dst` leads: to itself, or to an endpoint where it is a service's address. False where the
 * endpoint drawn is not of this node, or was replaced meanwhile.
 */
static __always_inline bool resolve(const struct addr *dst, struct addr *to)
{
	const struct service *service = bpf_map_lookup_elem(&services, dst);
	struct endpoint_key key = {};
	const struct addr *endpoint;

	if (!service)
		return true;
	key.set = service->set;
	key.slot = bpf_get_prandom_u32() % service->total;
	if (key.slot >= service->local)
		return false;
	endpoint = bpf_map_lookup_elem(&endpoints, &key);
	if (!endpoint || is_v4(endpoint) != is_v4(dst))
		return false;
	*to = *endpoint;
	return true;
}

static __always_inline __u32 verdict_on(const struct pod_cfg *pod, const struct addr *to)
{
	const struct local_ip *local = bpf_map_lookup_elem(&local_ips, to->ip);

	/* A pod that reaches itself by way of a service: sk_lookup would take it for loopback. */
	if (!local || pod_owns(pod, to))
		return POLICY_AGENT;
	return policy_verdict(local->id, pod->id, to->port);
}

/*
 * Decides, and leaves the note that goes with the answer. `to` is where the connection is to go: to
 * the agent for MESH_CAPTURED, to an endpoint perhaps for MESH_DIRECT.
 */
static __always_inline enum mesh_outcome outbound(struct bpf_sock_addr *ctx,
						  const struct pod_cfg *pod, const struct addr *dst,
						  struct addr *to)
{
	struct note *note = bpf_sk_storage_get(&notes, ctx->sk, NULL, 0);
	struct note left = { .a = *dst, .kind = NOTE_ORIG_DST, .src_id = pod->id };
	__u32 verdict = POLICY_AGENT;
	enum mesh_outcome outcome;

	/* Only a holder of the map can write this. A mark would not do: CAP_NET_RAW can set one. */
	if (note && note->kind == NOTE_AGENT)
		return MESH_AGENTS_OWN;
	/* A socket may connect again after a failure: the last attempt's note must not survive. */
	bpf_sk_storage_delete(&notes, ctx->sk);

	*to = *dst;
	if (pod->flags & POD_DIRECT && ctx->type == MESH_SOCK_STREAM) {
		if (resolve(dst, to))
			verdict = verdict_on(pod, to);
		else
			left.a.pad = NOTE_ELSEWHERE;
	}
	outcome = decide_outbound(pod, dst, ctx->type, verdict);
	if (outcome == MESH_DIRECT) {
		if (same_ip(to, dst) && to->port == dst->port)
			return MESH_DIRECT; /* getpeername(2) needs no help */
		left.kind = NOTE_DIRECT;
	} else if (outcome != MESH_CAPTURED) {
		return outcome;
	}
	note = bpf_sk_storage_get(&notes, ctx->sk, NULL, BPF_SK_STORAGE_GET_F_CREATE);
	if (!note)
		return MESH_NO_MEMORY;
	*note = left;
	return outcome;
}

/*
 * For the agent: the pod's own address and not loopback. So getsockname() shows what it would
 * without a mesh, and sockets that are bound to eth0 or to the address still connect.
 */
static __always_inline void address_agent(const struct pod_cfg *pod, const struct addr *dst,
					  struct addr *to)
{
	if (is_v4(dst))
		*to = addr_of_v4(pod->ip4, pod->out_port);
	else
		*to = (struct addr){ .ip = { pod->ip6[0], pod->ip6[1], pod->ip6[2], pod->ip6[3] },
				     .port = pod->out_port };
}

SEC("cgroup/connect4")
int out_connect4(struct bpf_sock_addr *ctx)
{
	struct addr dst = addr_of_v4(ctx->user_ip4, bpf_ntohs(ctx->user_port));
	const struct pod_cfg *pod = pod_of(ctx);
	enum mesh_outcome outcome;
	struct addr to = {};

	if (!pod)
		return leave_alone();
	outcome = outbound(ctx, pod, &dst, &to);
	if (outcome == MESH_CAPTURED)
		address_agent(pod, &dst, &to);
	if (outcome == MESH_CAPTURED || outcome == MESH_DIRECT) {
		ctx->user_ip4 = to.ip[3];
		ctx->user_port = bpf_htons(to.port);
	}
	return conclude(ctx, pod, &to, outcome);
}

SEC("cgroup/connect6")
int out_connect6(struct bpf_sock_addr *ctx)
{
	struct addr dst = {
		.ip = { ctx->user_ip6[0], ctx->user_ip6[1], ctx->user_ip6[2], ctx->user_ip6[3] },
		.port = bpf_ntohs(ctx->user_port),
	};
	const struct pod_cfg *pod = pod_of(ctx);
	enum mesh_outcome outcome;
	struct addr to = {};

	if (!pod)
		return leave_alone();
	outcome = outbound(ctx, pod, &dst, &to);
	/* An IPv6 socket that dials ::ffff:a.b.c.d speaks IPv4, and `to` is of that form too. */
	if (outcome == MESH_CAPTURED)
		address_agent(pod, &dst, &to);
	if (outcome == MESH_CAPTURED || outcome == MESH_DIRECT) {
		ctx->user_ip6[0] = to.ip[0];
		ctx->user_ip6[1] = to.ip[1];
		ctx->user_ip6[2] = to.ip[2];
		ctx->user_ip6[3] = to.ip[3];
		ctx->user_port = bpf_htons(to.port);
	}
	return conclude(ctx, pod, &to, outcome);
}

char _license[] SEC("license") = "Dual BSD/GPL";
