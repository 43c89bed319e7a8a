// SPDX-License-Identifier: Apache-2.0
/*
 * The load of every benchmark: one thread, one epoll loop, so that it costs little next to what it
 * measures, and the same for every subject.
 *
 *   load serve PORT                                echo on PORT, an endless source on PORT + 1
 *   load throughput ADDRESS PORT STREAMS SECONDS   bytes received from the source
 *   load requests ADDRESS PORT CONNECTIONS SECONDS one 64-byte request at a time on each connection
 *   load connections ADDRESS PORT CLIENTS SECONDS  connect, one request, close, again and again
 *
 * The server closes first in `connections`, since a client that does so keeps a port in TIME_WAIT
 * for a minute and runs out of them within seconds.
 *
 * A client measures after a warm-up of a quarter of SECONDS (which is not part of SECONDS) and
 * prints one line of JSON. Any error ends it with a message and status 1: a benchmark in which
 * something failed has no result.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { MESSAGE_BYTES = 64, CHUNK_BYTES = 256 * 1024, EVENTS = 256, SAMPLES = 8 * 1024 * 1024 };

/* First byte of a request: whether the server closes after its answer. */
enum { KEEP = 'K', CLOSE = 'C' };

enum role { LISTEN_ECHO, LISTEN_SOURCE, ECHO, SOURCE, SINK, REQUESTER };

struct peer {
	int fd;
	enum role role;
	size_t pending; /* bytes of the answer still to come */
	bool connected;
	uint64_t started_ns;
};

static char chunk[CHUNK_BYTES];
static uint32_t *samples_us;
static size_t sample_count;
static uint64_t bytes_received;
static uint64_t measure_from_ns, measure_to_ns;
static struct sockaddr_storage target;
static socklen_t target_len;
static bool reconnects;
static int epoll_fd;

static void die(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));
static void die(const char *format, ...)
{
	int error = errno;
	va_list args;

	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fprintf(stderr, ": %s\n", strerror(error));
	exit(1);
}

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void watch(struct peer *peer, uint32_t events, int operation)
{
	struct epoll_event event = { .events = events, .data.ptr = peer };

	if (epoll_ctl(epoll_fd, operation, peer->fd, &event) < 0)
		die("epoll_ctl");
}

static struct peer *peer_new(int fd, enum role role)
{
	struct peer *peer = calloc(1, sizeof(*peer));
	int one = 1;

	if (!peer)
		die("calloc");
	peer->fd = fd;
	peer->role = role;
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	return peer;
}

static void peer_free(struct peer *peer)
{
	close(peer->fd);
	free(peer);
}

/* ---- server ---- */

static void serve_on(uint16_t port, enum role role)
{
	struct sockaddr_in6 any = { .sin6_family = AF_INET6, .sin6_port = htons(port) };
	int fd = socket(AF_INET6, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	int one = 1, zero = 0;

	if (fd < 0)
		die("socket");
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &zero, sizeof(zero));
	if (bind(fd, (struct sockaddr *)&any, sizeof(any)) < 0 || listen(fd, 4096) < 0)
		die("Cannot listen on port %u", port);
	watch(peer_new(fd, role), EPOLLIN, EPOLL_CTL_ADD);
}

static void accept_all(struct peer *listener)
{
	int fd;

	while ((fd = accept4(listener->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
		bool source = listener->role == LISTEN_SOURCE;
		struct peer *peer = peer_new(fd, source ? SOURCE : ECHO);

		watch(peer, source ? EPOLLOUT : EPOLLIN, EPOLL_CTL_ADD);
	}
}

static void echo(struct peer *peer)
{
	char message[CHUNK_BYTES / 4];
	ssize_t got = read(peer->fd, message, sizeof(message));

	if (got < 0 && errno == EAGAIN)
		return;
	/* A message is small: that it does not fit a fresh send buffer would be an error to see. */
	if (got <= 0 || write(peer->fd, message, (size_t)got) != got || message[0] == CLOSE)
		peer_free(peer);
}

static void pour(struct peer *peer)
{
	ssize_t sent = write(peer->fd, chunk, sizeof(chunk));

	if (sent < 0 && errno != EAGAIN)
		peer_free(peer);
}

/* ---- client ---- */

static void connect_to_target(enum role role)
{
	int fd = socket(target.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	struct peer *peer;

	if (fd < 0)
		die("socket");
	peer = peer_new(fd, role);
	peer->started_ns = now_ns();
	if (connect(fd, (struct sockaddr *)&target, target_len) < 0 && errno != EINPROGRESS)
		die("Cannot connect");
	watch(peer, EPOLLIN | EPOLLOUT, EPOLL_CTL_ADD);
}

static void send_request(struct peer *peer)
{
	peer->pending = MESSAGE_BYTES;
	chunk[0] = reconnects ? CLOSE : KEEP;
	if (write(peer->fd, chunk, MESSAGE_BYTES) != MESSAGE_BYTES)
		die("Cannot send a request");
}

static void on_connected(struct peer *peer)
{
	int error = 0;
	socklen_t length = sizeof(error);

	getsockopt(peer->fd, SOL_SOCKET, SO_ERROR, &error, &length);
	errno = error;
	if (error)
		die("Cannot connect");
	peer->connected = true;
	watch(peer, EPOLLIN, EPOLL_CTL_MOD);
	if (peer->role == REQUESTER) {
		if (!reconnects)
			peer->started_ns = now_ns();
		send_request(peer);
	}
}

static void sample(const struct peer *peer, uint64_t end_ns)
{
	if (end_ns < measure_from_ns || end_ns > measure_to_ns)
		return;
	if (sample_count == SAMPLES)
		die("Cannot keep more than %d samples", SAMPLES);
	samples_us[sample_count++] = (uint32_t)((end_ns - peer->started_ns) / 1000);
}

static void receive_answer(struct peer *peer)
{
	char message[MESSAGE_BYTES];
	ssize_t got = read(peer->fd, message, sizeof(message));

	if (got < 0 && errno == EAGAIN)
		return;
	if (got == 0 && peer->pending == 0) {
		peer_free(peer);
		connect_to_target(REQUESTER);
		return;
	}
	if (got <= 0)
		die("Cannot receive an answer: %s", got == 0 ? "connection closed" : "error");
	peer->pending -= (size_t)got;
	if (peer->pending > 0)
		return;
	sample(peer, now_ns());
	if (reconnects)
		return;
	peer->started_ns = now_ns();
	send_request(peer);
}

static void drain(struct peer *peer)
{
	ssize_t got = read(peer->fd, chunk, sizeof(chunk));
	uint64_t now = now_ns();

	if (got < 0 && errno == EAGAIN)
		return;
	if (got <= 0)
		die("Cannot receive: %s", got == 0 ? "connection closed" : "error");
	if (now >= measure_from_ns && now <= measure_to_ns)
		bytes_received += (uint64_t)got;
}

static void client_event(struct peer *peer, uint32_t events)
{
	if (!peer->connected)
		on_connected(peer);
	else if (events & (EPOLLIN | EPOLLHUP | EPOLLERR))
		peer->role == SINK ? drain(peer) : receive_answer(peer);
}

/* ---- both ---- */

static void dispatch(struct peer *peer, uint32_t events)
{
	switch (peer->role) {
	case LISTEN_ECHO:
	case LISTEN_SOURCE:
		accept_all(peer);
		break;
	case ECHO:
		echo(peer);
		break;
	case SOURCE:
		events & (EPOLLERR | EPOLLHUP) ? peer_free(peer) : pour(peer);
		break;
	case SINK:
	case REQUESTER:
		client_event(peer, events);
		break;
	}
}

/* Until the clock passes until_ns, or for ever where it is 0. */
static void run(uint64_t until_ns)
{
	struct epoll_event events[EVENTS];

	while (!until_ns || now_ns() < until_ns) {
		int count = epoll_wait(epoll_fd, events, EVENTS, until_ns ? 100 : -1);

		for (int i = 0; i < count; i++)
			dispatch(events[i].data.ptr, events[i].events);
	}
}

static int by_value(const void *left, const void *right)
{
	uint32_t a = *(const uint32_t *)left, b = *(const uint32_t *)right;

	return (a > b) - (a < b);
}

static void parse_target(const char *address, const char *port)
{
	struct sockaddr_in *v4 = (struct sockaddr_in *)&target;
	struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&target;

	if (inet_pton(AF_INET, address, &v4->sin_addr) == 1) {
		v4->sin_family = AF_INET;
		v4->sin_port = htons((uint16_t)atoi(port));
		target_len = sizeof(*v4);
	} else if (inet_pton(AF_INET6, address, &v6->sin6_addr) == 1) {
		v6->sin6_family = AF_INET6;
		v6->sin6_port = htons((uint16_t)atoi(port));
		target_len = sizeof(*v6);
	} else {
		errno = EINVAL;
		die("Cannot read address \"%s\"", address);
	}
}

static void report(const char *mode, double seconds)
{
	qsort(samples_us, sample_count, sizeof(*samples_us), by_value);
	printf("{\"mode\":\"%s\",\"seconds\":%.3f,\"bytes\":%llu,\"count\":%zu", mode, seconds,
	       (unsigned long long)bytes_received, sample_count);
	if (sample_count > 0)
		printf(",\"p50Us\":%u,\"p99Us\":%u", samples_us[sample_count / 2],
		       samples_us[sample_count * 99 / 100]);
	printf("}\n");
}

int main(int argc, char **argv)
{
	bool is_server = argc == 3 && strcmp(argv[1], "serve") == 0;
	bool is_client = argc == 6;

	signal(SIGPIPE, SIG_IGN);
	epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (is_server) {
		uint16_t port = (uint16_t)atoi(argv[2]);

		serve_on(port, LISTEN_ECHO);
		serve_on((uint16_t)(port + 1), LISTEN_SOURCE);
		run(0);
	} else if (is_client) {
		double seconds = atof(argv[5]);
		bool is_throughput = strcmp(argv[1], "throughput") == 0;

		reconnects = strcmp(argv[1], "connections") == 0;
		samples_us = malloc(sizeof(*samples_us) * SAMPLES);
		parse_target(argv[2], argv[3]);
		measure_from_ns = now_ns() + (uint64_t)(seconds * 0.25e9);
		measure_to_ns = measure_from_ns + (uint64_t)(seconds * 1e9);
		for (int i = 0; i < atoi(argv[4]); i++)
			connect_to_target(is_throughput ? SINK : REQUESTER);
		run(measure_to_ns);
		report(argv[1], seconds);
	} else {
		fputs("usage: load serve PORT\n"
		      "       load throughput|requests|connections ADDRESS PORT N SECONDS\n",
		      stderr);
		return 2;
	}
	return 0;
}
