// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * Tells user space of connections that open and close in enrolled pods.
 *
 *   hook       sockops, at the root of the agent's part of the cgroup tree, after sockops.bpf.c,
 *              whose notes it reads
 *   reads      pods, notes, attest, local_ips, policy
 *   writes     flows        one event when a connection opens, one when it closes
 *              flow_socks   what the last event needs to know of the first moment
 *              flow_losses
 *   on error   the event is lost, and counted. No connection is held up or refused for it.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include "flow_layout.h"
#include "maps.h"
#include "policy.h"
#include "sock_ends.h"

#define SOCK_DONE_BIT 1 /* SOCK_DONE of net/sock.h: the other end's FIN has been taken in */

/*
 * At most so many records may be written between a mark in the ring and the question whether one
 * has passed it: as many as there are CPUs that do so at once. More, and a wake-up is left out,
 * which the consumer's timer makes up for.
 */
#define RECORDS_AT_ONCE 8

/* ---- set by user space before load: 1 << enum flow_role ---- */

/* Of the captured ones the agent knows more than the kernel does. */
const volatile __u32 followed_roles = 1 << FLOW_PLAIN_OUT | 1 << FLOW_PLAIN_IN |
				      1 << FLOW_DIRECT_OUT | 1 << FLOW_DIRECT_IN |
				      1 << FLOW_AGENT_OUT;
/* Of these not only the end is told. */
const volatile __u32 opened_roles = 1 << FLOW_DIRECT_OUT | 1 << FLOW_DIRECT_IN;

/* ---- maps ---- */

/* Full: events are lost. One consumer, which drains it by a timer or when it is woken. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, FLOW_RING_BYTES);
} flows SEC(".maps");

/* Not in `notes`, whose layout must never change. */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct flow_sock);
} flow_socks SEC(".maps");

/* ---- the kernel's own structs, as much of them as is read ---- */

struct sock_common {
	unsigned long skc_flags;
} __attribute__((preserve_access_index));

struct tcp_sock {
	__u32 snd_una;
	__u32 write_seq;
} __attribute__((preserve_access_index));

/* ---- roles ---- */

static __always_inline bool is_followed(__u32 role)
{
	return followed_roles & 1 << role;
}

static __always_inline bool is_connecting(__u32 role)
{
	return role == FLOW_PLAIN_OUT || role == FLOW_DIRECT_OUT || role == FLOW_CAPTURED ||
	       role == FLOW_AGENT_OUT;
}

/* Of the pod with itself, with nobody of ours in between. */
static __always_inline bool is_own_affair(const struct flow_key *flow)
{
	return is_loopback(&flow->src) || is_loopback(&flow->dst) ||
	       same_ip(&flow->src, &flow->dst);
}

static __always_inline __u32 connecting_role(const struct note *note, const struct flow_key *flow)
{
	if (note && note->kind == NOTE_AGENT)
		return FLOW_AGENT_OUT;
	if (note && note->kind == NOTE_ORIG_DST)
		return FLOW_CAPTURED;
	return bpf_map_lookup_elem(&attest, flow) ? FLOW_DIRECT_OUT : FLOW_PLAIN_OUT;
}

static __always_inline __u32 accepting_role(const struct note *note)
{
	if (!note)
		return FLOW_PLAIN_IN;
	return note->kind == NOTE_CAPTURED ? FLOW_AGENT_IN : FLOW_APP_IN;
}

/* ---- events ---- */

/*
 * To wake the agent for each event costs a quarter of the connections per second. It comes by
 * itself ten times a second; only where that may not be enough it is called, once per quarter.
 */
static __always_inline __u64 wakeup(void)
{
	__u64 quarter = bpf_ringbuf_query(&flows, BPF_RB_RING_SIZE) / 4;
	__u64 waiting = bpf_ringbuf_query(&flows, BPF_RB_AVAIL_DATA);
	__u64 window = RECORDS_AT_ONCE * (sizeof(struct flow_event) + BPF_RINGBUF_HDR_SZ);

	if (waiting < quarter || (waiting & (quarter - 1)) >= window)
		return BPF_RB_NO_WAKEUP;
	return BPF_RB_FORCE_WAKEUP;
}

static __always_inline struct flow_event *begin(struct bpf_sock_ops *ctx,
						const struct flow_sock *sock)
{
	struct flow_event *event = bpf_ringbuf_reserve(&flows, sizeof(*event), 0);

	if (!event) {
		lose(FLOW_LOST_FLOWS);
		return NULL;
	}
	__builtin_memset(event, 0, sizeof(*event));
	event->at_ns = bpf_ktime_get_ns();
	event->netns = bpf_get_netns_cookie(ctx);
	event->socket = bpf_get_socket_cookie(ctx);
	event->duration_ns = event->at_ns - sock->since_ns;
	event->dialled = sock->dialled;
	event->src_id = sock->src_id;
	event->dst_id = sock->dst_id;
	event->srtt_us = READ_CTX(ctx->srtt_us) >> 3; /* kept in eighths */
	event->retransmits = READ_CTX(ctx->total_retrans);
	event->role = sock->role;
	event->flags = sock->flags;
	if (is_connecting(sock->role))
		ends(ctx, &event->flow.src, &event->flow.dst);
	else
		ends(ctx, &event->flow.dst, &event->flow.src);
	return event;
}

static __always_inline void tell_opened(struct bpf_sock_ops *ctx, const struct flow_sock *sock)
{
	struct flow_event *event;

	if (!(opened_roles & 1 << sock->role))
		return;
	event = begin(ctx, sock);
	if (!event)
		return;
	event->kind = FLOW_OPENED;
	bpf_ringbuf_submit(event, wakeup());
}

/*
 * The kernel's counts are of sequence numbers: the SYN of the side that connects is in them, and
 * each FIN, once it was acknowledged or taken in.
 */
static __always_inline void tell_closed(struct bpf_sock_ops *ctx, struct bpf_sock *sk,
					const struct flow_sock *sock, __u32 old_state)
{
	bool has_sent_fin = old_state == BPF_TCP_FIN_WAIT1 || old_state == BPF_TCP_FIN_WAIT2 ||
			    old_state == BPF_TCP_CLOSING || old_state == BPF_TCP_LAST_ACK;
	struct tcp_sock *tcp = bpf_skc_to_tcp_sock(sk);
	struct flow_event *event = begin(ctx, sock);
	__u64 sent, received;

	if (!event)
		return;
	event->kind = FLOW_CLOSED;
	event->flags |= FLOW_RESET;
	sent = READ_CTX(ctx->bytes_acked);
	received = READ_CTX(ctx->bytes_received);
	if (sock->flags & FLOW_WAS_OPEN && is_connecting(sock->role) && sent)
		sent--;
	if (tcp && has_sent_fin && tcp->snd_una == tcp->write_seq) {
		if (sent)
			sent--;
		if (old_state != BPF_TCP_FIN_WAIT1)
			event->flags &= ~FLOW_RESET;
	}
	if (tcp && ((struct sock_common *)tcp)->skc_flags & 1UL << SOCK_DONE_BIT && received)
		received--;
	event->sent_bytes = sent;
	event->received_bytes = received;
	bpf_ringbuf_submit(event, wakeup());
}

/* ---- the life of a socket ---- */

static __always_inline struct flow_sock *follow(struct bpf_sock_ops *ctx, struct bpf_sock *sk,
						const struct flow_sock *initial)
{
	struct flow_sock *sock;

	/* What is there is of an attempt that has failed: a socket may connect again. */
	sock = bpf_sk_storage_get(&flow_socks, sk, NULL, BPF_SK_STORAGE_GET_F_CREATE);
	if (!sock) {
		lose(FLOW_LOST_UNTRACKED);
		return NULL;
	}
	*sock = *initial;
	/* Other programs' flags are kept. */
	bpf_sock_ops_cb_flags_set(ctx, ctx->bpf_sock_ops_cb_flags | BPF_SOCK_OPS_STATE_CB_FLAG);
	return sock;
}

/* Before the SYN leaves. */
static __always_inline void on_connect(struct bpf_sock_ops *ctx, struct bpf_sock *sk)
{
	__u64 netns = bpf_get_netns_cookie(ctx);
	const struct pod_cfg *pod = bpf_map_lookup_elem(&pods, &netns);
	const struct local_ip *local;
	struct flow_sock sock = {};
	struct flow_key flow = {};
	const struct note *note;

	if (!pod)
		return;
	note = bpf_sk_storage_get(&notes, sk, NULL, 0);
	ends(ctx, &flow.src, &flow.dst);
	sock.role = connecting_role(note, &flow);
	if (sock.role == FLOW_PLAIN_OUT && is_own_affair(&flow))
		return;
	if (!is_followed(sock.role))
		return;
	if (note && sock.role != FLOW_AGENT_OUT)
		sock.dialled = note->a;
	if (sock.role == FLOW_DIRECT_OUT) {
		local = bpf_map_lookup_elem(&local_ips, flow.dst.ip);
		sock.dst_id = local ? local->id : 0;
	}
	/* The agent's own connections are made for whoever it relays for. */
	sock.src_id = sock.role == FLOW_AGENT_OUT ? 0 : pod->id;
	sock.since_ns = bpf_ktime_get_ns();
	follow(ctx, sk, &sock);
}

static __always_inline void on_connected(struct bpf_sock_ops *ctx, struct bpf_sock *sk)
{
	struct flow_sock *sock = bpf_sk_storage_get(&flow_socks, sk, NULL, 0);

	if (!sock)
		return;
	sock->flags |= FLOW_WAS_OPEN;
	tell_opened(ctx, sock);
}

static __always_inline void on_accepted(struct bpf_sock_ops *ctx, struct bpf_sock *sk)
{
	__u64 netns = bpf_get_netns_cookie(ctx);
	const struct pod_cfg *pod = bpf_map_lookup_elem(&pods, &netns);
	struct flow_sock sock = { .flags = FLOW_WAS_OPEN }, *kept;
	const struct attest *source;
	struct flow_key flow = {};
	const struct note *note;

	if (!pod)
		return;
	note = bpf_sk_storage_get(&notes, sk, NULL, 0);
	sock.role = accepting_role(note);
	ends(ctx, &flow.dst, &flow.src);
	source = note ? NULL : bpf_map_lookup_elem(&attest, &flow);
	/* Attested and yet not allowed in by the table: it is the agent that has accepted. */
	if (source && policy_verdict(pod->id, source->src_id, flow.dst.port) == POLICY_ALLOW)
		sock.role = FLOW_DIRECT_IN;
	if (sock.role == FLOW_PLAIN_IN && is_own_affair(&flow))
		return;
	if (!is_followed(sock.role))
		return;
	if (note)
		sock.src_id = note->src_id;
	else if (source)
		sock.src_id = source->src_id;
	if (note && note->kind == NOTE_CAPTURED)
		sock.dialled = note->a;
	else
		sock.dst_id = pod->id;
	sock.since_ns = bpf_ktime_get_ns();
	kept = follow(ctx, sk, &sock);
	if (kept)
		tell_opened(ctx, kept);
}

static __always_inline void on_closed(struct bpf_sock_ops *ctx, struct bpf_sock *sk)
{
	struct flow_sock *sock = bpf_sk_storage_get(&flow_socks, sk, NULL, 0);
	__u32 old_state = READ_CTX(ctx->args[0]);

	if (!sock)
		return;
	tell_closed(ctx, sk, sock, old_state);
	bpf_sk_storage_delete(&flow_socks, sk);
}

SEC("sockops")
int flow_sockops(struct bpf_sock_ops *ctx)
{
	struct bpf_sock *sk = ctx->sk;

	if (!sk)
		return 1;
	switch (ctx->op) {
	case BPF_SOCK_OPS_TCP_CONNECT_CB:
		on_connect(ctx, sk);
		break;
	case BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB:
		on_connected(ctx, sk);
		break;
	case BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB:
		on_accepted(ctx, sk);
		break;
	case BPF_SOCK_OPS_STATE_CB:
		if (ctx->args[1] == BPF_TCP_CLOSE)
			on_closed(ctx, sk);
		break;
	}
	return 1;
}

char _license[] SEC("license") = "Dual BSD/GPL";
