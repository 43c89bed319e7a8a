// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * Tables over decide.h, compiled for the host with its sanitizers by agent/kernel/decide.test.ts.
 * Prints what is wrong and exits 1, or prints how many rows held.
 */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include "include/decide.h"

static int rows, failures;

static struct addr addr(const char *text, __u16 port)
{
	struct addr a = { .port = port };

	if (inet_pton(AF_INET6, text, a.ip) == 1)
		return a;
	if (inet_pton(AF_INET, text, &a.ip[3]) != 1) {
		fprintf(stderr, "\"%s\" is no address\n", text);
		exit(2);
	}
	a.ip[2] = htonl(0xffff);
	return a;
}

static struct pod_cfg pod(const char *ip4, const char *ip6, __u32 flags)
{
	struct pod_cfg cfg = { .id = 1, .flags = flags, .out_port = MESH_OUT_PORT };

	if (ip4)
		inet_pton(AF_INET, ip4, &cfg.ip4);
	if (ip6)
		inet_pton(AF_INET6, ip6, cfg.ip6);
	return cfg;
}

static void expect(const char *what, int actual, int expected)
{
	rows++;
	if (actual == expected)
		return;
	failures++;
	printf("%s: %d instead of %d\n", what, actual, expected);
}

static void test_outbound(void)
{
	static const struct {
		const char *ip4, *ip6;
		__u32 flags;
		const char *dst;
		__u32 type;
		enum mesh_outcome expected;
	} table[] = {
		{ "10.1.1.2", "fd00::2", 0, "10.1.2.2", SOCK_STREAM, MESH_CAPTURED },
		{ "10.1.1.2", "fd00::2", 0, "fd00::3", SOCK_STREAM, MESH_CAPTURED },
		{ "10.1.1.2", "fd00::2", 0, "::ffff:10.96.0.1", SOCK_STREAM, MESH_CAPTURED },
		{ "10.1.1.2", "fd00::2", 0, "126.255.255.255", SOCK_STREAM, MESH_CAPTURED },
		{ "10.1.1.2", "fd00::2", 0, "128.0.0.0", SOCK_STREAM, MESH_CAPTURED },
		{ "10.1.1.2", "fd00::2", 0, "255.0.0.1", SOCK_STREAM, MESH_CAPTURED },
		{ "10.1.1.2", "fd00::2", 0, "0.0.0.1", SOCK_STREAM, MESH_CAPTURED },
		{ "10.1.1.2", "fd00::2", 0, "::2", SOCK_STREAM, MESH_CAPTURED },
		/* The pod itself. */
		{ "10.1.1.2", "fd00::2", 0, "10.1.1.2", SOCK_STREAM, MESH_SELF },
		{ "10.1.1.2", "fd00::2", 0, "::ffff:10.1.1.2", SOCK_STREAM, MESH_SELF },
		{ "10.1.1.2", "fd00::2", 0, "fd00::2", SOCK_STREAM, MESH_SELF },
		{ "10.1.1.2", "fd00::2", 0, "127.0.0.1", SOCK_STREAM, MESH_SELF },
		{ "10.1.1.2", "fd00::2", 0, "127.255.255.255", SOCK_STREAM, MESH_SELF },
		{ "10.1.1.2", "fd00::2", 0, "::ffff:127.0.0.1", SOCK_STREAM, MESH_SELF },
		{ "10.1.1.2", "fd00::2", 0, "::1", SOCK_STREAM, MESH_SELF },
		{ "10.1.1.2", "fd00::2", 0, "0.0.0.0", SOCK_STREAM, MESH_SELF },
		{ "10.1.1.2", "fd00::2", 0, "::", SOCK_STREAM, MESH_SELF },
		/* Not ready. */
		{ "10.1.1.2", "fd00::2", POD_BLOCKED, "10.1.2.2", SOCK_STREAM, MESH_BLOCKED },
		{ "10.1.1.2", "fd00::2", POD_BLOCKED, "10.1.2.2", SOCK_DGRAM, MESH_BLOCKED },
		{ "10.1.1.2", "fd00::2", POD_BLOCKED, "127.0.0.1", SOCK_STREAM, MESH_SELF },
		{ "10.1.1.2", "fd00::2", POD_BLOCKED, "10.1.1.2", SOCK_STREAM, MESH_SELF },
		/* Other than TCP. */
		{ "10.1.1.2", "fd00::2", 0, "10.1.2.2", SOCK_DGRAM, MESH_NOT_TCP },
		{ "10.1.1.2", NULL, 0, "fd00::3", SOCK_DGRAM, MESH_NOT_TCP },
		/* A family that the pod has no address of. */
		{ "10.1.1.2", NULL, 0, "fe80::1", SOCK_STREAM, MESH_NO_ADDRESS },
		{ NULL, "fd00::2", 0, "10.1.2.2", SOCK_STREAM, MESH_NO_ADDRESS },
		{ NULL, "fd00::2", 0, "::ffff:10.1.2.2", SOCK_STREAM, MESH_NO_ADDRESS },
		{ NULL, "fd00::2", 0, "fd00::3", SOCK_STREAM, MESH_CAPTURED },
		{ "10.1.1.2", NULL, 0, "::1", SOCK_STREAM, MESH_SELF },
	};

	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		struct pod_cfg cfg = pod(table[i].ip4, table[i].ip6, table[i].flags);
		struct addr dst = addr(table[i].dst, 80);
		char what[128];

		snprintf(what, sizeof(what), "outbound to %s, type %u, flags %u", table[i].dst,
			 table[i].type, table[i].flags);
		expect(what, decide_outbound(&cfg, &dst, table[i].type, POLICY_AGENT),
		       table[i].expected);
		/* What policy says matters only where the connection would leave the pod. */
		for (__u32 verdict = POLICY_ALLOW; verdict <= POLICY_DENY; verdict++) {
			enum mesh_outcome known =
				verdict == POLICY_DENY ? MESH_DENIED : MESH_DIRECT;

			expect(what, decide_outbound(&cfg, &dst, table[i].type, verdict),
			       table[i].expected == MESH_CAPTURED ? known : table[i].expected);
		}
	}
}

static void test_inbound(void)
{
	static const struct {
		const char *peer, *local;
		__u16 port;
		enum mesh_outcome expected;
	} table[] = {
		{ "10.1.2.2", "10.1.1.2", 80, MESH_IN_PLAINTEXT },
		{ "fd00::3", "fd00::2", 80, MESH_IN_PLAINTEXT },
		{ "128.0.0.1", "10.1.1.2", 80, MESH_IN_PLAINTEXT },
		{ "10.1.2.2", "10.1.1.2", 15008, MESH_IN_TUNNEL },
		{ "fd00::3", "fd00::2", 15008, MESH_IN_TUNNEL },
		/* The pod with itself, the agent with the application. */
		{ "10.1.1.2", "10.1.1.2", 80, MESH_IN_SELF },
		{ "fd00::2", "fd00::2", 80, MESH_IN_SELF },
		{ "127.0.0.6", "10.1.1.2", 80, MESH_IN_SELF },
		{ "::1", "fd00::2", 80, MESH_IN_SELF },
		{ "127.0.0.1", "127.0.0.1", 80, MESH_IN_SELF },
		{ "10.1.1.2", "127.0.0.1", 80, MESH_IN_SELF },
		{ "::1", "::1", 80, MESH_IN_SELF },
		/* The two reserved ports, whoever dials; on loopback they are anybody's. */
		{ "10.1.1.2", "10.1.1.2", 15001, MESH_IN_OUTBOUND },
		{ "127.0.0.1", "10.1.1.2", 15001, MESH_IN_OUTBOUND },
		{ "10.1.1.9", "10.1.1.2", 15001, MESH_IN_OUTBOUND },
		{ "fd00::2", "fd00::2", 15001, MESH_IN_OUTBOUND },
		{ "10.1.1.2", "10.1.1.2", 15008, MESH_IN_TUNNEL },
		{ "127.0.0.1", "127.0.0.1", 15001, MESH_IN_SELF },
		{ "::1", "::1", 15008, MESH_IN_SELF },
	};

	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		struct addr peer = addr(table[i].peer, 0);
		struct addr local = addr(table[i].local, table[i].port);
		char what[128];

		snprintf(what, sizeof(what), "inbound from %s to %s port %u", table[i].peer,
			 table[i].local, table[i].port);
		expect(what, decide_inbound(&peer, &local, MESH_OUT_PORT, MESH_HBONE_PORT),
		       table[i].expected);
	}
}

/* What never depends on the rest, over random bytes. */
static void test_invariants(void)
{
	srand(1);
	for (int i = 0; i < 200000; i++) {
		struct pod_cfg cfg = pod("10.1.1.2", "fd00::2", 0);
		struct addr a = {}, b = {};
		enum mesh_outcome outcome;

		for (size_t n = 0; n < sizeof(a.ip); n++) {
			((unsigned char *)a.ip)[n] = (unsigned char)(rand() % 4 ? 0 : rand());
			((unsigned char *)b.ip)[n] = (unsigned char)(rand() % 4 ? 0 : rand());
		}
		a.port = (__u16)rand();
		b.port = (__u16)rand();
		outcome = decide_outbound(&cfg, &a, SOCK_STREAM, POLICY_AGENT);
		if (outcome != MESH_CAPTURED && outcome != MESH_SELF)
			expect("random outbound", outcome, MESH_CAPTURED);
		cfg.flags = POD_BLOCKED;
		if (outcome == MESH_CAPTURED)
			expect("the same, blocked",
			       decide_outbound(&cfg, &a, SOCK_STREAM, POLICY_ALLOW), MESH_BLOCKED);
		outcome = decide_inbound(&a, &b, MESH_OUT_PORT, MESH_HBONE_PORT);
		if (outcome == MESH_IN_SELF && !is_loopback(&a) && !is_loopback(&b) &&
		    !same_ip(&a, &b))
			expect("random inbound", outcome, MESH_IN_PLAINTEXT);
	}
}

int main(void)
{
	test_outbound();
	test_inbound();
	test_invariants();
	printf("%d rows, %d failures\n", rows, failures);
	return failures != 0;
}
