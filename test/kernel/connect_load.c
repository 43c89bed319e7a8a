// SPDX-License-Identifier: Apache-2.0
/*
 * Opens many connections, each to a destination of its own, says on each where it meant to go, and
 * checks that the other side answers "y".
 *
 *   connect_load v4|v6|mapped COUNT
 *
 * Connection n goes to 198.18.x.y or 2001:db8::x:y, x.y being n, port 1024 + n; it sends its
 * number as text, padded with blanks to 8 bytes. Exits 0 if all of them were answered.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { AT_ONCE = 256, WAIT_MS = 10000, NUMBER_BYTES = 8 };

static int fail(const char *what)
{
	perror(what);
	exit(1);
}

static socklen_t destination(const char *mode, int number, struct sockaddr_storage *name)
{
	char text[64];
	struct sockaddr_in *v4 = (struct sockaddr_in *)name;
	struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)name;
	int high = number >> 8, low = number & 255, port = 1024 + number;

	memset(name, 0, sizeof(*name));
	if (strcmp(mode, "v4") == 0) {
		snprintf(text, sizeof(text), "198.18.%d.%d", high, low);
		v4->sin_family = AF_INET;
		v4->sin_port = htons(port);
		if (inet_pton(AF_INET, text, &v4->sin_addr) != 1)
			fail("inet_pton");
		return sizeof(*v4);
	}
	snprintf(text, sizeof(text),
		 strcmp(mode, "v6") == 0 ? "2001:db8::%x:%x" : "::ffff:198.18.%d.%d", high, low);
	v6->sin6_family = AF_INET6;
	v6->sin6_port = htons(port);
	if (inet_pton(AF_INET6, text, &v6->sin6_addr) != 1)
		fail("inet_pton");
	return sizeof(*v6);
}

static void start(const char *mode, int number, int epoll)
{
	struct sockaddr_storage name;
	socklen_t length = destination(mode, number, &name);
	struct epoll_event interest = { .events = EPOLLOUT };
	int fd = socket(name.ss_family, SOCK_STREAM | SOCK_NONBLOCK, 0);

	if (fd < 0)
		fail("socket");
	if (connect(fd, (struct sockaddr *)&name, length) && errno != EINPROGRESS)
		fail("connect");
	interest.data.u64 = (unsigned long long)number << 32 | (unsigned)fd;
	if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &interest))
		fail("epoll_ctl");
}

/* Returns 1 when the connection has had its answer. */
static int step(int epoll, struct epoll_event *event)
{
	int fd = (int)(event->data.u64 & 0xffffffff), number = (int)(event->data.u64 >> 32);
	char text[NUMBER_BYTES + 1], answer = 0;

	if (event->events & EPOLLOUT) {
		event->events = EPOLLIN;
		snprintf(text, sizeof(text), "%-8d", number);
		if (send(fd, text, NUMBER_BYTES, MSG_NOSIGNAL) != NUMBER_BYTES)
			fail("send");
		if (epoll_ctl(epoll, EPOLL_CTL_MOD, fd, event))
			fail("epoll_ctl");
		return 0;
	}
	if (recv(fd, &answer, 1, 0) != 1)
		fail("recv");
	if (answer != 'y') {
		fprintf(stderr, "connection %d: the agent has another destination\n", number);
		exit(1);
	}
	close(fd);
	return 1;
}

int main(int argc, char **argv)
{
	struct epoll_event events[AT_ONCE];
	int epoll = epoll_create1(0), started = 0, done = 0, count;

	if (argc != 3 || epoll < 0)
		return 2;
	count = atoi(argv[2]);
	while (done < count) {
		while (started < count && started - done < AT_ONCE)
			start(argv[1], started++, epoll);
		int ready = epoll_wait(epoll, events, AT_ONCE, WAIT_MS);
		if (ready <= 0) {
			fprintf(stderr, "%d of %d answered, then nothing\n", done, count);
			return 1;
		}
		for (int i = 0; i < ready; i++)
			done += step(epoll, &events[i]);
	}
	printf("%d\n", done);
	return 0;
}
